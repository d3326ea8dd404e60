"""One broker in one process: its parts, its start and drain, its stop report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import RLock
from typing import Any, cast

import msgspec

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.worker.processor import Processor
from django_gomq.bus.worker.runner import ConsumerRunner
from django_gomq.bus.worker.worker import Worker

from .backend import Backend, BackendContext
from .consumer import Consumer
from .counts import ConsumerCounts, Labels, RefusalCounts
from .delivery import DropReason
from .errors import (
    BrokerClosedError,
    ConfigurationError,
    NoConsumerError,
    NotRunningError,
    PublishError,
)
from .fork import Process, is_bus_thread
from .hooks import PROPAGATED, Hook, Hooks, PropagateUnsampled
from .interrupts import run_shielded
from .message import Message
from .stats import BrokerStats, QueueStats, Remainder
from .timers import Deadline


def stop_report(subscriptions: Iterable[Subscription], began: float) -> Remainder:
    """Return what was left by a stop that began then, by ``time.monotonic()``."""
    dropped: Counter[str] = Counter()
    in_flight = 0
    for subscription in subscriptions:
        in_flight += subscription.in_flight
        for (event, reason), count in subscription.counts.dropped.items():
            if reason is DropReason.SHUTDOWN:
                dropped[event] += count
    seconds = time.monotonic() - began
    return Remainder(dropped=dict(dropped), in_flight=in_flight, seconds=seconds)


class InstrumentedPublisher:
    """Hands valid messages to a backend; thread-safe."""

    def __init__(
        self, broker: str, backend: Backend, hooks: Hooks, refusals: RefusalCounts
    ) -> None:
        self._broker = broker
        self._backend = backend
        self._backend_name = backend.name
        self._publish = backend.publish
        self._hooks = hooks
        # None where nobody calls publish_unsampled: to ask takes 20 ns each time.
        self._propagate = cast("PropagateUnsampled", hooks.propagate_unsampled)
        self._refusals = refusals

    def publish_unsampled(self, message: Message[Any], timeout: float | None) -> None:
        """Publish one message of which the only watcher keeps nothing, or watched."""
        # The hot path of every publish and emit where traces are on.
        try:
            keeps_nothing = self._propagate(message)
        except Exception:  # noqa: BLE001 - a hook's bug
            keeps_nothing = self._hooks.note_propagate_failure()
        if keeps_nothing:
            self._publish(message, timeout)
        else:
            self.publish_watched(message, timeout)

    def publish_watched(
        self,
        message: Message[Any],
        timeout: float | None,
        parents: tuple[object, ...] = (),
    ) -> None:
        """Publish one message while the hooks watch."""
        hooks = self._hooks
        ends = hooks.before_publish(self._broker, self._backend_name, message, parents)
        if not ends:
            self._publish(message, timeout)
            return
        error: Exception | None = None
        try:
            self._publish(message, timeout)
        except Exception as raised:
            error = raised
            raise
        finally:
            hooks.after_publish(ends, error)

    def publish_many(
        self,
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]] = (),
        answers: list[PublishError | None] | None = None,
    ) -> list[PublishError | None]:
        """Publish what can be published; see ``Broker.publish_many``.

        ``answers``, an empty list, has what is known so far if this is interrupted.
        """
        answers = [] if answers is None else answers
        try:
            if self._are_carried(messages, parents):
                self._backend.publish_into(answers, messages, timeout)
            else:
                self._publish_each(answers, messages, timeout, parents)
        finally:
            if any(answers):
                for message, answer in zip(messages, answers, strict=False):
                    if answer is not None:
                        self.refuse(message, answer)
        return answers

    def _are_carried(
        self, messages: Sequence[Message[Any]], parents: Sequence[tuple[object, ...]]
    ) -> bool:
        if parents:
            return all(parent is PROPAGATED for parent in parents)
        return self._hooks.propagate_all(messages)

    def _publish_each(
        self,
        answers: list[PublishError | None],
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]],
    ) -> None:
        deadline = Deadline.after(timeout)
        for index, message in enumerate(messages):
            context = parents[index] if parents else ()
            try:
                if context is PROPAGATED:
                    self._publish(message, deadline.left())
                else:
                    self.publish_watched(message, deadline.left(), context)
                answers.append(None)
            except PublishError as error:
                answers.append(error)

    def refuse_all(self, messages: Sequence[Message[Any]], error: PublishError) -> None:
        """Count and report messages that were not taken for one reason."""
        for message in messages:
            self.refuse(message, error)

    def refuse(self, message: Message[Any], error: PublishError) -> None:
        """Count and report a message that was not taken."""
        event = message.type
        if isinstance(error, NoConsumerError):
            self._refusals.count_unconsumed(event)
            self._hooks.notify(lambda hook: hook.unconsumed(self._broker, event))
            return
        self._refusals.count_refused(event, error.code)
        self._hooks.notify(lambda hook: hook.refused(self._broker, event, error))


Publish = Callable[[Message[Any], float | None], None]

_POLL_SECONDS = 0.005  # a drain looks this often whether it is done


class BrokerRuntime:
    """One broker in one process: not started, running, draining, closed."""

    def __init__(
        self,
        process: Process,
        *,
        alias: str,
        make_backend: Callable[[], Backend],
        make_hooks: Callable[[], Sequence[Hook]],
        get_worker: Callable[[], Worker] | None,
        threads: int,
        declared: Sequence[str],
        wait_buckets: Sequence[float],
        handler_buckets: Sequence[float],
    ) -> None:
        """Without ``get_worker`` the broker has a worker of its own.

        ``declared`` are event types that have numbers before their first message.
        """
        self.process = process
        self._alias = alias
        self._wait_buckets = wait_buckets
        self._handler_buckets = handler_buckets
        self.is_running = False
        self.is_closed = False
        self.hooks = Hooks(make_hooks())
        self._owns_worker = get_worker is None
        self._worker = get_worker() if get_worker else Worker(threads, hooks=self.hooks)
        self._closing, self._changing = RLock(), RLock()
        self._has_run = self._is_draining = False
        self._remainder: Remainder | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._labels = Labels(declared)
        self.refusals = RefusalCounts(self._labels)
        self.backend = make_backend()
        self.backend.open(
            BackendContext(
                broker=alias,
                hooks=self.hooks,
                timers=self._worker.timers,
                is_bus_thread=is_bus_thread,
                run_soon=self._worker.run_soon,
            )
        )
        self.publisher = InstrumentedPublisher(
            alias, self.backend, self.hooks, self.refusals
        )
        self.publish: Publish = self.backend.publish
        if self.hooks.propagate_unsampled is not None:
            self.publish = self.publisher.publish_unsampled
        elif self.hooks.publish_watchers:
            self.publish = self.publisher.publish_watched
        """Takes one message, or raises the PublishError that says why not."""

    def subscribe(self, consumer: Consumer) -> None:
        """Read for this consumer from now on."""
        self.backend.capabilities.check(consumer)
        worker = self._worker
        subscription = Subscription(
            self._alias,
            consumer,
            hooks=self.hooks,
            counts=ConsumerCounts(
                self._wait_buckets,
                self._handler_buckets,
                # A consumer of exact types has no others to label.
                self._labels if consumer.has_patterns else None,
            ),
        )
        processor = Processor(
            consumer,
            broker=self._alias,
            backend=self.backend.name,
            hooks=self.hooks,
            environment=worker.environment,
        )
        worker.attach(
            ConsumerRunner(subscription, self.backend, processor, worker.threads)
        )
        self.backend.subscribe(subscription)
        self._subscriptions = {**self._subscriptions, consumer.name: subscription}

    def subscription(self, consumer: str) -> Subscription:
        """Return the subscription of a consumer, or raise ConfigurationError."""
        try:
            return self._subscriptions[consumer]
        except KeyError:
            raise ConfigurationError(
                f"Broker {self._alias!r} has no consumer {consumer!r}; there are "
                f"{', '.join(self._subscriptions) or 'none'}.",
                consumer=consumer,
                broker=self._alias,
            ) from None

    def start(self) -> None:
        """Start handler threads first, then the reader; idempotent.

        Raises BrokerClosedError after ``close``.
        """
        with self.process.lock:
            if self.is_closed:
                raise self.why_not_running()
            if not self.is_running:
                run_shielded(self._start)

    def _start(self) -> None:
        # May hold no process.lock: who waits for it has that.
        with self._changing:
            if not (self.is_running or self.is_closed):
                self._worker.start()
                self.backend.start_reading()
                self.is_running = not self.is_closed

    def why_not_running(self, event: str | None = None) -> PublishError:
        """Return the error for who wants to publish where nothing runs."""
        alias = self._alias
        if self.is_closed:
            return BrokerClosedError(
                f"Broker {alias!r} is closed in this process.",
                event=event,
                broker=alias,
            )
        return NotRunningError(
            f"Broker {alias!r} does not run in this process: its RUN setting (or "
            "GOMQ_RUN) says so, or this is a management command that handles nothing. "
            "Set RUN to 'here', or call start().",
            event=event,
            broker=alias,
        )

    def close(self, timeout: float) -> Remainder:
        """Drain up to ``timeout`` seconds, stop, and say what was left; idempotent.

        After an exception of a signal handler the next call drains on, as long again.
        """
        with self.process.lock:  # not in the midst of a start
            self._has_run |= self.is_running
            self.is_closed, self.is_running = True, False
        with self._closing:
            if self._remainder is None:
                began = time.monotonic()
                # A signal handler that closes while its thread does ends that at once.
                is_first = self._has_run and not self._is_draining
                self._drain(began + timeout if is_first else began)
                run_shielded(partial(self._end, began))
            assert self._remainder is not None  # noqa: S101 - _end() said it
            return self._remainder

    def _end(self, began: float) -> None:
        """Stop, and count what was left; once, whoever comes in between."""
        with self._changing:
            if self._remainder is None:
                self._stop()
                remainder = stop_report(self._subscriptions.values(), began)
                self._remainder = remainder
                self.hooks.notify(lambda hook: hook.stopped(self._alias, remainder))

    def _stop(self) -> None:
        self._step(self.backend.stop_reading)
        self._retire_worker()
        for subscription in self._subscriptions.values():
            self._step(self.backend.release, subscription, subscription.take_all())
        self._step(self.backend.close)

    def _step(self, call: Callable[..., object], *arguments: object) -> None:
        """Take one step of the stop; a runner that is away keeps no other from it."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - the stop goes on
            failure = error
            self.hooks.notify(lambda hook: hook.failed("stop", failure))

    def _drain(self, deadline: float) -> None:
        is_nested, self._is_draining = self._is_draining, True
        try:
            run_shielded(self._hurry)
            left = deadline - time.monotonic()
            while left > 0 and self._has_work(left):
                time.sleep(min(left, _POLL_SECONDS))
                left = deadline - time.monotonic()
        finally:
            self._is_draining = is_nested

    def _hurry(self) -> None:
        self._step(self.backend.stop_publishing)
        for subscription in self._subscriptions.values():
            subscription.draining = True
            subscription.notify()

    def _has_work(self, seconds: float) -> bool:
        """Whether something could still be finished in that time."""
        if self.backend.pending(seconds) > 0:
            return True
        for subscription in self._subscriptions.values():
            # PermitPool are held through every step, so nothing is missed on its way.
            held = subscription.channel.held
            if subscription.in_flight or (
                not subscription.paused and held > subscription.scheduled(seconds)
            ):
                return True
        return False

    def _retire_worker(self) -> None:
        for subscription in self._subscriptions.values():
            self._worker.detach(subscription)
        if self._owns_worker:
            self._worker.stop(timeout=0.5)

    def stats(self) -> BrokerStats:
        """Return the numbers of this moment."""
        queues = self.backend.queue_stats()
        for event, refusals in self.refusals.state().items():
            queues[event] = msgspec.structs.replace(
                queues.get(event, QueueStats()),
                refused=refusals.refused,
                unconsumed=refusals.unconsumed,
                rolled_back=refusals.rolled_back,
            )
        return BrokerStats(
            queues=queues,
            consumers={
                name: subscription.stats()
                for name, subscription in self._subscriptions.items()
            },
            reader_up=self.backend.is_reading,
            started=self.is_running,
        )
