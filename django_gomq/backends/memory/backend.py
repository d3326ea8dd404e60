"""The memory backend: a bounded queue per event type in this process."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, ClassVar

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    DeadLetter,
    Settled,
)
from django_gomq.bus.channels.permits import check_capacity
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import (
    DeadLettered,
    Delivery,
    DropReason,
    Outcome,
    RetryAfter,
)
from django_gomq.bus.errors import ConfigurationError, PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.stats import QueueStats
from django_gomq.bus.timers import Deadline, DelayQueue

from .dispatcher import Dispatcher
from .publisher import MemoryPublisher
from .queues import QueueRegistry


class MemoryBackend(Backend):
    """Bounded queues in this process: fast, and gone with the process.

    ``capacity`` bounds the queue of each event type; a ``delay`` above ``max_delay``
    seconds is refused, as a process does not live for ever; the last
    ``dead_letters`` dead letters are kept to look at.
    """

    name: ClassVar[str] = "memory"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ordered_by_key=True, priority=True, max_delay=300.0
    )

    def __init__(
        self,
        *,
        capacity: int = 1000,
        max_delay: float = 300.0,
        dead_letters: int = 1000,
    ) -> None:
        check_capacity(capacity)
        for option, value in (("max_delay", max_delay), ("dead_letters", dead_letters)):
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ConfigurationError(f"{option} is {value!r}, not a number from 0.")
        self._capacity = capacity
        self._max_delay = max_delay
        self._dead_letters: deque[DeadLetter] = deque(maxlen=int(dead_letters))
        self._retries: dict[Subscription, DelayQueue[Delivery]] = {}
        self._has_ended = False

    def open(self, context: BackendContext) -> None:
        """Make the queues' registry and the dispatcher, which does not run yet."""
        self._hooks = context.hooks
        self._timers = context.timers
        self._queues = QueueRegistry(context.broker, self._capacity)
        self._dispatcher = Dispatcher(self._queues, self._report, context.run_soon)
        self._publisher = MemoryPublisher(
            self._queues, self._dispatcher, context, self._max_delay
        )
        if type(self).publish is MemoryBackend.publish:
            # One call less for every publish: 40 ns of 400.
            self.publish = self._publisher.publish  # type: ignore[method-assign]

    def _report(self, error: BaseException) -> None:
        self._hooks.notify(lambda hook: hook.failed("dispatcher", error))

    def subscribe(self, subscription: Subscription) -> None:
        """Send this subscription what it subscribes to, from now on."""
        retries: DelayQueue[Delivery] = DelayQueue(
            self._timers, subscription.come_again
        )
        self._retries = {**self._retries, subscription: retries}
        subscription.scheduled = retries.due_after
        self._queues.subscribe(subscription)

    def start_reading(self) -> None:
        """Start the dispatcher thread."""
        self._timers.every_second(self._dispatcher.look_everywhere)
        self._dispatcher.loop.start()

    def check(self, message: Message[Any]) -> None:
        self._publisher.check(message)

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        """Put one message on its type's queue: one put, whatever the consumers."""
        self._publisher.publish(message, timeout)

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        """Put runs of one type and priority at once; what finds no room may wait."""
        answers: list[PublishError | None] = []
        self.publish_into(answers, messages, timeout)
        return answers

    def publish_into(
        self,
        answers: list[PublishError | None],
        messages: Sequence[Message[Any]],
        timeout: float | None,
    ) -> None:
        """Do so; an answer is added in the step that takes the message."""
        deadline = Deadline.after(timeout)
        for equals in _runs_of_equals(messages):
            done = 0
            while done < len(equals):
                done += self._publisher.put_chunk(equals, done, answers)
                if done < len(equals):
                    self._publisher.put_one(equals[done], deadline.left(), answers)
                    done += 1

    def settle(
        self,
        subscription: Subscription,
        settlements: Sequence[tuple[Delivery, Outcome]],
    ) -> list[Settled]:
        """Keep what comes again and what died; the rest is forgotten."""
        return [self._settle(subscription, *pair) for pair in settlements]

    def _settle(
        self, subscription: Subscription, delivery: Delivery, outcome: Outcome
    ) -> Settled:
        match outcome:
            case RetryAfter(delay, error):
                self._retry(subscription, delivery, delay, is_error=error is not None)
                return Settled.KEPT
            case DeadLettered(error):
                self._bury(subscription, delivery, error)
        return Settled.DONE

    def ack(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> list[Delivery]:
        """Forget what succeeded; no lease is ever lost."""
        return []

    def _retry(
        self,
        subscription: Subscription,
        delivery: Delivery,
        delay: float,
        *,
        is_error: bool,
    ) -> None:
        following = Delivery(
            delivery.message, time.monotonic() + delay, delivery.attempt + is_error
        )
        self._retries[subscription].put(following, delay)
        if self._has_ended:
            self._drop_retries()  # the handler outlived the stop

    def _bury(
        self, subscription: Subscription, delivery: Delivery, error: BaseException
    ) -> None:
        self._dead_letters.append(
            DeadLetter(
                message=delivery.message,
                consumer=subscription.consumer.name,
                attempt=delivery.attempt,
                error=f"{type(error).__name__}: {error}",
                time=time.time(),
            )
        )

    def release(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> None:
        """Drop what was not started: memory has nowhere to give it back to."""
        if deliveries:
            messages = [delivery.message for delivery in deliveries]
            subscription.count_drops(messages, DropReason.SHUTDOWN)
            subscription.channel.release(len(deliveries))

    def stop_publishing(self) -> None:
        """Refuse what comes now; what is queued still goes to its consumers."""
        self._publisher.close()

    def stop_reading(self) -> None:
        """End the dispatcher."""
        self._timers.cancel(self._dispatcher.look_everywhere)
        self._dispatcher.loop.stop()

    def close(self) -> None:
        """Drop, for each consumer that misses it, what is queued or scheduled."""
        self._has_ended = True
        self._dispatcher.abandon(DropReason.SHUTDOWN)
        self._publisher.drop_all(DropReason.SHUTDOWN)
        self._drop_retries()

    def _drop_retries(self) -> None:
        for subscription, retries in self._retries.items():
            self.release(subscription, retries.take_all())

    @property
    def is_reading(self) -> bool:
        """Whether the dispatcher runs."""
        return self._dispatcher.loop.is_up

    def pending(self, before: float) -> int:
        """Return how many messages would still be dispatched within that time."""
        return self._publisher.pending(before)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first."""
        return list(self._dead_letters)

    def queue_stats(self) -> dict[str, QueueStats]:
        """Return the numbers of every queue there is."""
        return self._queues.stats()


def _runs_of_equals(
    messages: Sequence[Message[Any]],
) -> Iterable[Sequence[Message[Any]]]:
    """Part messages where the type, the priority or the delay changes."""
    if not messages:
        return ()
    first = messages[0]
    kind, priority = first.type, first.priority
    # Three times as fast as to ask for runs, and what emit_many mostly brings.
    if not [
        message
        for message in messages
        if message.type is not kind or message.priority is not priority or message.delay
    ]:
        return (messages,)
    return [list(run) for _, run in itertools.groupby(messages, _KIND)]


_KIND = attrgetter("type", "priority", "delay")
