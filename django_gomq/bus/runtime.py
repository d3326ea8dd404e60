"""One broker in one process: its parts, its start and drain, its stop report."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import RLock
from typing import Any, Final, TypeVar

import msgspec

from .backend import Backend, BackendContext
from .channels.subscription import Subscription
from .consumer import Consumer
from .counts import ConsumerCounts, Labels, PublishCounts
from .dead_letters import KEPT, DeadLetter, DeadLetterRing
from .delivery import Delivery, DropReason
from .errors import (
    BrokerClosedError,
    ConfigurationError,
    NotRunningError,
    PublishError,
    describe_error,
)
from .hooks import Hook, Hooks
from .message import DEFAULT_PRIORITY, Message, validate_type
from .process.fork import Process
from .process.interrupts import run_shielded
from .publisher import InstrumentedPublisher
from .readers import PullReader
from .stats import BrokerStats, QueueStats, Remainder
from .worker.processor import Processor
from .worker.runner import ConsumerRunner
from .worker.settlement_batcher import SettlementBatcher
from .worker.settler import Settler
from .worker.worker import Worker

T = TypeVar("T")
Publish = Callable[[Message[Any], float | None], None]

POLL_SECONDS: Final = 0.005  # a drain looks at its own numbers this often
STOP_SECONDS: Final = 0.5  # for each step of a stop that may have to wait


def stop_report(
    subscriptions: Iterable[Subscription], began: float, unsettled: int = 0
) -> Remainder:
    """Return what was left by a stop that began then, by ``time.monotonic()``."""
    dropped: Counter[str] = Counter()
    in_flight = 0
    for subscription in subscriptions:
        in_flight += subscription.in_flight
        for (event, reason), count in subscription.counts.dropped.items():
            if reason is DropReason.SHUTDOWN:
                dropped[event] += count
    return Remainder(
        dropped=dict(dropped),
        in_flight=in_flight,
        unsettled=unsettled,
        seconds=time.monotonic() - began,
    )


class BrokerRuntime:
    """One broker in one process: publishing, running its consumers, draining, closed.

    Thread-safe.
    """

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
        source: str,
        kept_dead_letters: int | None,
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
        """Whether its consumers run here."""
        self.is_closed = False
        hooks = make_hooks()
        self._owns_worker = get_worker is None
        self._worker = get_worker() if get_worker else Worker(threads, hooks=hooks)
        self.hooks = Hooks(hooks, self._worker.housekeeping)
        self._closing, self._changing = RLock(), RLock()
        self._has_run = self._is_draining = False
        self._remainder: Remainder | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._ordered: tuple[Consumer, ...] = ()
        """Those with ordered_by_key."""
        self._labels = Labels(declared)
        self.counts = PublishCounts(self._labels)
        self.backend = make_backend()
        kept = self.backend.kept_dead_letters
        self._letters = DeadLetterRing(
            next(size for size in (kept, kept_dead_letters, KEPT) if size is not None)
        )
        self._inbox = PullReader(self.backend, self.hooks)
        self.backend.open(
            BackendContext(
                broker=alias,
                source=source,
                owner=f"{os.getpid()}-{os.urandom(6).hex()}",
                inbox=self._inbox,
                timers=self._worker.timers,
                hooks=self.hooks,
            )
        )
        self._reader = self.backend.make_reader() or self._inbox
        self._batcher = (
            SettlementBatcher(self.backend.settle, self._inbox.report)
            if self.backend.capabilities.settles
            else None
        )
        self.publisher = InstrumentedPublisher(
            alias, self.backend, self.hooks, self.counts
        )
        self.publish: Publish = self.publisher.publish
        """Takes one message, or raises the PublishError that says why not."""

    def check(self, message: Message[Any]) -> None:
        """Raise what ``publish`` would raise for such a message at any time.

        That is ConfigurationError for what a backend or a consumer of the type
        excludes, and MessageError for a delay that is too long.
        """
        validate_type(message.type)
        if not message.delay and message.priority == DEFAULT_PRIORITY:
            return
        self.backend.capabilities.check_message(message, self._alias)
        for consumer in self._ordered:
            if consumer.subscribes_to(message.type):
                raise ConfigurationError(
                    f"{message.type!r} has a consumer with ordered_by_key: delay and "
                    "priority would break its order.",
                    event=message.type,
                    consumer=consumer.name,
                    broker=self._alias,
                )

    # ------------------------------------------------------------ consumers

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
            timers=worker.timers,
        )
        processor = Processor(
            consumer,
            broker=self._alias,
            backend=self.backend.name,
            hooks=self.hooks,
            environment=worker.environment,
        )
        settler = Settler(
            subscription,
            self.backend.capabilities,
            keep=self._letters.add,
            batcher=self._batcher,
            holder=self._inbox.held if self._batcher is not None else None,
        )
        worker.attach(ConsumerRunner(subscription, settler, processor, worker.threads))
        self._inbox.settle_by(consumer.name, settler)
        if consumer.ordered_by_key:
            self._ordered = (*self._ordered, consumer)
        self._reader.subscribe(subscription)
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

    # ------------------------------------------------------------ start

    def start(self) -> None:
        """Start all threads, the reader's last; idempotent.

        Raises BrokerClosedError after ``close``, and NotRunningError where a thread
        cannot be had; the next call starts what is missing.
        """
        with self.process.lock:
            if self.is_closed:
                raise self.why_not_running()
            if not self.is_running:
                run_shielded(self._start)

    def _start(self) -> None:
        # May hold no process.lock: who waits for it has that.
        with self._changing:
            if self.is_running or self.is_closed:
                return
            try:
                self._worker.start()
                if self._batcher is not None:
                    self._batcher.start()
                self._reader.start(self._worker.run_soon)
            except (RuntimeError, MemoryError, OSError) as error:
                raise self._why_not_started(error) from error
            self.is_running = not self.is_closed

    def _why_not_started(self, error: BaseException) -> NotRunningError:
        return NotRunningError(
            f"Broker {self._alias!r} could not start in this process, and tries again "
            f"at the next publish: {describe_error(error)}. See how many threads and "
            "open files the process may have.",
            broker=self._alias,
        )

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

    # ------------------------------------------------------------ drain and stop

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

    def _drain(self, deadline: float) -> None:
        is_nested, self._is_draining = self._is_draining, True
        try:
            run_shielded(self._begin_drain)
            left = deadline - time.monotonic()
            while left > 0 and self._has_work(left):
                time.sleep(min(left, POLL_SECONDS))
                left = deadline - time.monotonic()
        finally:
            self._is_draining = is_nested

    def _begin_drain(self) -> None:
        self._step(self._reader.stop_fetching)
        for subscription in self._subscriptions.values():
            subscription.draining = True
            subscription.notify()

    def _has_work(self, seconds: float) -> bool:
        """Whether something could still be finished in that time; asks no server."""
        if self._reader.pending(seconds) > 0:
            return True
        for subscription in self._subscriptions.values():
            # Permits are held through every step, so nothing is missed on its way.
            if subscription.in_flight or subscription.unsettled:
                return True
            waiting = subscription.channel.held > subscription.scheduled(seconds)
            if waiting and subscription.may_start_now():
                return True
        return False

    def _end(self, began: float) -> None:
        """Stop, and count what was left; once, whoever comes in between."""
        with self._changing:
            if self._remainder is None:
                unsettled = self._stop()
                remainder = stop_report(self._subscriptions.values(), began, unsettled)
                self._remainder = remainder
                self.hooks.notify(lambda hook: hook.stopped(self._alias, remainder))
                self.hooks.flush()

    def _stop(self) -> int:
        """End every part; return how many outcomes the server was never told."""
        self._step(self._reader.stop)
        self._retire_worker()
        for subscription in self._subscriptions.values():
            give_up = partial(self._step, self._give_up, subscription)
            subscription.on_late = give_up  # of a thread that outlives the stop
            give_up()
        unsettled = self._batcher.stop(STOP_SECONDS) if self._batcher else 0
        return unsettled + (self._step(self.backend.close, STOP_SECONDS) or 0)

    def _give_up(self, subscription: Subscription) -> None:
        """Give what was not started back to the server, or drop it."""
        left = subscription.take_all()
        if not left:
            return
        if self._batcher is None:
            messages = [delivery.message for delivery in left]
            subscription.count_drops(messages, DropReason.SHUTDOWN)
            subscription.channel.release(len(left))
            return
        self._inbox.held.let_go(left)
        subscription.hand_back(left)
        self.backend.release(left)

    def _step(self, call: Callable[..., T | None], *arguments: object) -> T | None:
        """Take one step of the stop; a server that is away keeps no other from it."""
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - the stop goes on
            failure = error
            self.hooks.notify(lambda hook: hook.failed("stop", failure))
            return None

    def _retire_worker(self) -> None:
        for subscription in self._subscriptions.values():
            self._worker.detach(subscription)
        if self._owns_worker:
            self._worker.stop(timeout=STOP_SECONDS)

    # ------------------------------------------------------------ what operators read

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first."""
        if self.backend.capabilities.dead_letters:
            return self.backend.dead_letters(limit=KEPT)
        return self._letters.list()

    def replay(self, ids: Sequence[str]) -> int:
        """Hand dead letters to their consumers again; return how many found room.

        Raises ConfigurationError where only the process keeps those of a server.
        """
        if self.backend.capabilities.dead_letters:
            return self.backend.replay(ids)
        if self._batcher is not None:
            raise ConfigurationError(
                f"The backend of broker {self._alias!r} keeps no dead letters: these "
                "can be looked at and discarded, but not replayed.",
                broker=self._alias,
            )
        taken = self._letters.take(ids)
        refused = [letter for letter in taken if not self._hand_over_again(letter)]
        for letter in refused:
            self._letters.add(letter)
        return len(taken) - len(refused)

    def _hand_over_again(self, letter: DeadLetter) -> bool:
        subscription = self._subscriptions.get(letter.consumer)
        if subscription is None or not self.is_running:
            return False
        again = Delivery(letter.message, time.monotonic())
        return not subscription.accept([again])

    def discard(self, ids: Sequence[str]) -> int:
        """Forget dead letters; return how many there were."""
        if self.backend.capabilities.dead_letters:
            return self.backend.discard(ids)
        return len(self._letters.take(ids))

    @property
    def is_reading(self) -> bool:
        """Whether the thread runs that feeds the channels."""
        settles = self._batcher is None or self._batcher.is_up
        return self._reader.is_up and settles

    def stats(self) -> BrokerStats:
        """Return the numbers as they are now."""
        queues = dict(self.backend.queue_stats())
        for event, refusals in self.counts.state().items():
            queue = queues.get(event, QueueStats())
            queues[event] = msgspec.structs.replace(
                queue,
                # A server takes in one step what memory queues and dispatches.
                published=queue.published + refusals.accepted,
                dispatched=queue.dispatched + refusals.accepted,
                refused=refusals.refused,
                unconsumed=refusals.unconsumed,
                rolled_back=refusals.rolled_back,
                unknown=refusals.unknown,
            )
        return BrokerStats(
            queues=queues,
            consumers={
                name: subscription.stats()
                for name, subscription in self._subscriptions.items()
            },
            reader_up=self.is_reading,
            started=self.is_running,
            server=self._inbox.server_stats,
            server_up=self._inbox.is_answered and self.publisher.is_linked,
        )
