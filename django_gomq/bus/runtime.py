"""One broker in one process: its parts, its start and drain, its stop report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any, Final, TypeVar

import msgspec

from .backend import Backend, BackendContext
from .channels.spilling import SpillingSubscription
from .channels.subscription import Subscription
from .consumer import Consumer
from .counts import ConsumerCounts, Labels, PublishCounts
from .dead_letters import MAX_LETTERS, DeadLetter, DeadLetterKeeper, Keeping, Take
from .delivery import Delivery
from .errors import (
    BrokerClosedError,
    ConfigurationError,
    NotRunningError,
    PublishError,
    describe_error,
)
from .hooks import Hook, Hooks
from .message import DEFAULT_PRIORITY, Message, validate_type
from .process.clock import Clock
from .process.fork import Process
from .process.interrupts import run_shielded
from .publisher import InstrumentedPublisher
from .readers import PullReader
from .stats import BrokerStats, QueueStats, Remainder
from .worker.drain import Drain
from .worker.processor import Processor
from .worker.runner import ConsumerRunner
from .worker.server_dead_letters import ServerDeadLetters
from .worker.settlement_batcher import SettlementBatcher
from .worker.settler import Settler
from .worker.spiller import Spiller
from .worker.transactions import TransactionInbox
from .worker.worker import Worker

T = TypeVar("T")
Publish = Callable[[Message[Any], float | None], None]

HELD_SECONDS: Final = 300.0
"""So long a message may wait in memory to come again, or as long as a delayed one."""
STOP_SECONDS: Final = 0.5  # for each step of a stop that may have to wait
SPILL_SECONDS: Final = 5.0
"""For the last of them: a store that takes longer loses what is left."""


class BrokerRuntime:
    """One broker in one process: publishing, running its consumers, draining, closed.

    Thread-safe.
    """

    _spiller: Spiller | None = None
    """There is one where a consumer spills."""

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
        may_wait: Callable[[], bool],
        source: str,
        keeping: Keeping,
        wait_buckets: Sequence[float],
        handler_buckets: Sequence[float],
    ) -> None:
        """Without ``get_worker`` the broker has a worker of its own.

        ``declared`` are event types that have numbers before their first message.
        """
        self.process = process
        self._alias = alias
        self._buckets = wait_buckets, handler_buckets
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
        kept = self.backend.kept_dead_letters, keeping.most, MAX_LETTERS
        self.letters = DeadLetterKeeper(
            alias,
            next(size for size in kept if size is not None),
            admit=self._replay_to,
            store=None if self.backend.capabilities.dead_letters else keeping.store,
            hand_over=self._worker.housekeeping.hand_over,
            flush=self.hooks.flush,
            on_failure=self._report_store,
        )
        self.inbox = PullReader(self.backend, self.hooks, alias, keeping.store)
        self.backend.open(
            BackendContext(
                broker=alias,
                source=source,
                owner=f"{os.getpid()}-{os.urandom(6).hex()}",
                inbox=self.inbox,
                timers=self._worker.timers,
                hooks=self.hooks,
                may_wait=may_wait,
            )
        )
        self._reader = self.backend.make_reader() or self.inbox
        self._drain = Drain(alias, self._reader, self._worker, self.hooks)
        self._batcher = (
            SettlementBatcher(self.inbox.settle, self.inbox.report)
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
        subscription = self._make_subscription(consumer)
        processor = Processor(
            consumer,
            broker=self._alias,
            backend=self.backend.name,
            hooks=self.hooks,
            environment=worker.environment,
            longest_pause=self._longest_pause,
            inbox=TransactionInbox(self.backend.database, self.backend.note_handled),
        )
        settler = Settler(
            subscription,
            self.backend.capabilities,
            keep=self.letters.keep,
            batcher=self._batcher,
            holder=self.inbox.held if self._batcher is not None else None,
        )
        worker.attach(ConsumerRunner(subscription, settler, processor, worker.threads))
        self.inbox.settle_by(consumer.name, settler)
        if consumer.ordered_by_key:
            self._ordered = (*self._ordered, consumer)
        self._reader.subscribe(subscription)
        self._drain.add(subscription)
        self._subscriptions = {**self._subscriptions, consumer.name: subscription}

    def _make_subscription(self, consumer: Consumer) -> Subscription:
        make: Callable[..., Subscription] = Subscription
        spills = self.backend.capabilities.spills(consumer)
        spiller = self._open_spiller(consumer) if spills else None
        if spiller is not None:
            make = partial(SpillingSubscription, on_spill=spiller.wake)
        subscription = make(
            self._alias,
            consumer,
            hooks=self.hooks,
            counts=ConsumerCounts(
                *self._buckets,
                # A consumer of exact types has no others to label.
                self._labels if consumer.has_patterns else None,
            ),
            timers=self._worker.timers,
        )
        if spiller is not None:
            assert isinstance(subscription, SpillingSubscription)  # noqa: S101
            spiller.add(subscription)
        return subscription

    def _open_spiller(self, consumer: Consumer) -> Spiller:
        if self._spiller is None:
            store = self._worker.environment.make_spill_store(self._alias)
            if store is None:
                raise ConfigurationError(
                    f"Consumer {consumer.name!r}: overflow='spill' needs a place to "
                    "store messages, and this broker was made without one.",
                    consumer=consumer.name,
                    broker=self._alias,
                )
            self._spiller = Spiller(store, self.inbox.report)
        if self.is_running:
            self._spiller.start()
        return self._spiller

    @property
    def _longest_pause(self) -> float:
        capabilities = self.backend.capabilities
        if capabilities.settles or capabilities.max_delay is None:
            return math.inf  # a message that is not settled is safe with the server
        return max(capabilities.max_delay, HELD_SECONDS)

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
                if self._spiller is not None:
                    self._spiller.start()
                self._worker.start()
                self._worker.timers.every_second(self.letters.tick)
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
            "Set RUN to 'here', or GOMQ_RUN=here for this command, or call start().",
            event=event,
            broker=alias,
        )

    # ------------------------------------------------------------ drain and stop

    def close(self, timeout: float) -> Remainder:
        """Drain up to ``timeout`` seconds, stop, and say what was left; idempotent.

        A second caller waits for the first, whose drain ends by the earlier of both.
        After an exception of a signal handler the next call drains on, as long again.
        """
        began = Clock.monotonic()
        with self.process.lock:  # not in the midst of a start
            self._has_run |= self.is_running
            self.is_closed, self.is_running = True, False
        self._drain.hurry(began + timeout)
        try:
            with self._closing:
                if self._remainder is None:
                    # A signal handler that closes while its thread does ends that.
                    is_first = self._has_run and not self._is_draining
                    self._work_off(began + timeout if is_first else began)
                    run_shielded(partial(self._end, began))
        except BaseException:
            self._drain.relax()
            raise
        assert self._remainder is not None  # noqa: S101 - _end() said it
        return self._remainder

    def finish(self, timeout: float) -> None:
        """Wait until what was accepted is finished, and go on running."""
        self._drain.wait(Clock.monotonic() + timeout, self._has_ended)

    def has_work(self, seconds: float) -> bool:
        """Whether something that was accepted could still be finished in that time."""
        return self.is_running and self._drain.has_work(seconds)

    @property
    def is_closing(self) -> bool:
        """Whether it drains, and has not said yet what was left."""
        return self.is_closed and self._has_run and self._remainder is None

    def _has_ended(self) -> bool:
        return self._remainder is not None

    def _work_off(self, deadline: float) -> None:
        is_nested, self._is_draining = self._is_draining, True
        try:
            run_shielded(self._begin_drain)
            self._drain.wait(deadline, self._has_ended)
            self._drain.wait_for_background(deadline, self._has_ended)
        finally:
            self._is_draining = is_nested

    def _begin_drain(self) -> None:
        self._step(self._reader.stop_fetching)
        for subscription in self._subscriptions.values():
            subscription.draining = True
            subscription.notify()

    def _end(self, began: float) -> None:
        """Stop, and count what was left; once, whoever comes in between."""
        with self._changing:
            if self._remainder is None:
                left = (
                    self._worker.give_up_background() if self._drain.has_async else ()
                )
                unsettled = self._stop()
                remainder = self._drain.report(began, unsettled, left)
                self._remainder = remainder
                self._worker.timers.cancel(self.letters.tick)
                self.hooks.notify(lambda hook: hook.stopped(self._alias, remainder))
                self.letters.finish()  # behind that: it may wait for a database
                self.hooks.flush()

    def _stop(self) -> int:
        """End every part; return how many outcomes the server was never told."""
        self._step(self._reader.stop)
        self._retire_worker()
        for subscription in self._subscriptions.values():
            give_up = partial(self._step, self._hand_back_unstarted, subscription)
            subscription.on_late = give_up  # of a thread that outlives the stop
            give_up()
        unsettled = self._batcher.stop(STOP_SECONDS) if self._batcher else 0
        unsettled += self._step(self.backend.close, STOP_SECONDS) or 0
        if self._spiller is not None:
            self._spiller.stop(SPILL_SECONDS)
        return unsettled

    def _hand_back_unstarted(self, subscription: Subscription) -> None:
        """Give what was not started back to the server, or spill or drop it."""
        left = subscription.take_all()
        if not left:
            return
        if self._batcher is None:
            subscription.abandon(left)
            return
        self.inbox.held.let_go(left)
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

    @property
    def kept_letters(self) -> ServerDeadLetters | DeadLetterKeeper:
        """The dead letters of the server, or of this process where it keeps none."""
        at_server = self.backend.capabilities.dead_letters
        return self.inbox.letters if at_server else self.letters

    def replay(self, ids: Sequence[str]) -> int:
        """Hand dead letters to their consumers again; return how many found room.

        Raises ConfigurationError where the server of a backend keeps none.
        """
        if self.backend.capabilities.dead_letters:
            return self.inbox.letters.replay(ids)
        if self._batcher is not None:
            raise ConfigurationError(
                f"The backend of broker {self._alias!r} keeps no dead letters: these "
                "can be looked at and discarded, but not replayed.",
                broker=self._alias,
            )
        return self.letters.replay(ids)

    def _replay_to(self, consumer: str, wanted: int, take: Take) -> int:
        """Hand a consumer what was taken, up to its room; return how many."""
        subscription = self._subscriptions.get(consumer)
        if subscription is None or not self.is_running or self._batcher is not None:
            return 0
        room = subscription.channel.try_permits(wanted)
        letters: Sequence[DeadLetter] = ()
        try:
            letters = take(room) if room else ()
        finally:
            if len(letters) < room:
                subscription.channel.return_permits(room - len(letters))
        now = Clock.monotonic()
        subscription.accept_permitted(
            [Delivery(letter.message, now) for letter in letters]
        )
        return len(letters)

    def _report_store(self, error: Exception) -> None:
        self.hooks.notify(lambda hook: hook.failed("store of dead letters", error))

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
        running = self._worker.oldest_starts()
        return BrokerStats(
            queues=queues,
            consumers={
                name: subscription.stats(running.get(subscription))
                for name, subscription in self._subscriptions.items()
            },
            reader_up=self.is_reading,
            started=self.is_running,
            server=self.inbox.sampler.latest,
            server_up=self.inbox.is_answered and self.publisher.is_linked,
            reconnects=self.inbox.reconnects + self.publisher.reconnects,
            operations={**self.publisher.times.state(), **self.inbox.times.state()},
        )
