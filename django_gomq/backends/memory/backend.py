"""The memory backend: a bounded queue per event type in this process."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Any, ClassVar, Final

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    Reader,
    RunSoon,
    Settled,
    Settlement,
)
from django_gomq.bus.channels.permits import check_capacity
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import DropReason
from django_gomq.bus.durations import read_seconds
from django_gomq.bus.errors import ConfigurationError, PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.process.timers import Deadline, Timers
from django_gomq.bus.stats import QueueStats

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

    def __init__(
        self,
        *,
        capacity: int = 1000,
        max_delay: float | timedelta = 300.0,
        dead_letters: int | None = None,
    ) -> None:
        check_capacity(capacity)
        longest = read_seconds("max_delay", max_delay)
        if dead_letters is not None and not (
            isinstance(dead_letters, int | float)
            and not isinstance(dead_letters, bool)
            and 0 <= dead_letters < math.inf
        ):
            raise ConfigurationError(
                f"dead_letters is {dead_letters!r}, not a number from 0."
            )
        self.capabilities = Capabilities(
            ordered_by_key=True, priority=True, max_delay=longest, settles=False
        )
        self.kept_dead_letters = None if dead_letters is None else int(dead_letters)
        self._capacity = capacity

    def open(self, context: BackendContext) -> None:
        """Make the registry of queues and the dispatcher, which does not run yet."""
        self._queues = QueueRegistry(context.broker, self._capacity, context.may_wait)
        self._dispatcher = Dispatcher(self._queues, context.inbox.report)
        self._publisher = MemoryPublisher(self._queues, self._dispatcher, context)
        self._timers = context.timers
        if type(self).publish is MemoryBackend.publish:
            # One call less for every publish: 40 ns of 400.
            self.publish = self._publisher.publish  # type: ignore[method-assign]

    def make_reader(self) -> Reader:
        return MemoryReader(
            self._queues, self._dispatcher, self._publisher, self._timers
        )

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        """Put one message on its type's queue: one put, whatever the consumers."""
        self._publisher.publish(message, timeout)

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        """Put runs of one type and priority at once; what finds no room may wait."""
        deadline = Deadline.after(timeout)
        answers: list[PublishError | None] = []
        for equals in _runs_of_equals(messages):
            done = 0
            while done < len(equals):
                taken = self._publisher.put_run(equals, done, timeout)
                answers += [None] * taken
                done += taken
                if done < len(equals):
                    left = deadline.left()
                    answers.append(self._publisher.try_put(equals[done], timeout, left))
                    done += 1
        return answers

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Forget them: nothing of a delivery outlives its end here."""
        return [Settled.DONE] * len(settlements)

    def close(self, timeout: float) -> None:
        """Drop, for each consumer that misses it, what is queued or delayed."""
        self._dispatcher.abandon(DropReason.SHUTDOWN)
        self._publisher.drop_all(DropReason.SHUTDOWN)

    def queue_stats(self) -> Mapping[str, QueueStats]:
        """Return the numbers of every queue there is."""
        return self._queues.stats()


class MemoryReader(Reader):
    """The dispatcher, as what feeds the channels of a broker."""

    def __init__(
        self,
        registry: QueueRegistry,
        dispatcher: Dispatcher,
        publisher: MemoryPublisher,
        timers: Timers,
    ) -> None:
        self._queues = registry
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._timers = timers

    def subscribe(self, subscription: Subscription) -> None:
        self._queues.subscribe(subscription)

    def start(self, run_soon: RunSoon) -> None:
        self._dispatcher.loop.start(run_soon)
        self._timers.every_second(self._dispatcher.look_everywhere)

    def stop_fetching(self) -> None:
        self._publisher.close()  # what is queued still goes to its consumers

    def stop(self) -> None:
        self._timers.cancel(self._dispatcher.look_everywhere)
        self._dispatcher.loop.stop()

    @property
    def is_up(self) -> bool:
        return self._dispatcher.loop.is_up

    def pending(self, seconds: float) -> int:
        return self._publisher.pending(seconds)


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


_KIND: Final = attrgetter("type", "priority", "delay")
