"""The life of a broker in one process: from its parts to its last words."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any

import msgspec

from .backend import Surroundings
from .consumer import Consumer
from .counts import ConsumerCounts, RefusalCounts
from .errors import (
    BrokerClosedError,
    ConfigurationError,
    NotRunningError,
    PublishError,
)
from .handover import Handover
from .hooks import Hooks
from .labels import Labels
from .last_words import last_words
from .message import Message
from .plan import Plan
from .process import Process
from .processor import Processor
from .slices import Server
from .stats import BrokerStats, QueueStats, Remainder
from .subscription import Subscription
from .threads import is_bus_thread
from .whole import run_whole
from .worker import Worker

Publish = Callable[[Message[Any], float | None], None]

_POLL_SECONDS = 0.005  # a drain looks this often whether it is done


class Life:
    """One broker in one process: not started, running, draining, closed."""

    def __init__(self, plan: Plan, process: Process) -> None:
        self.process = process
        self.is_running = False
        self.is_closed = False
        self._plan = plan
        self.hooks = Hooks(plan.make_hooks())
        self._owns_worker = plan.get_worker is None
        self._worker = (
            plan.get_worker()
            if plan.get_worker
            else Worker(plan.threads, hooks=self.hooks)
        )
        self._closing, self._changing = RLock(), RLock()
        self._has_run = self._is_draining = False
        self._remainder: Remainder | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._labels = Labels(plan.declared)
        self.refusals = RefusalCounts(self._labels)
        self.backend = plan.make_backend()
        self.backend.open(
            Surroundings(
                broker=plan.alias,
                hooks=self.hooks,
                timers=self._worker.timers,
                is_bus_thread=is_bus_thread,
                run_soon=self._worker.run_soon,
            )
        )
        self.handover = Handover(plan.alias, self.backend, self.hooks, self.refusals)
        self.publish: Publish = self.backend.publish
        if self.hooks.carry is not None:
            self.publish = self.handover.publish_carrying
        elif self.hooks.publish_watchers:
            self.publish = self.handover.publish_watched
        """Takes one message, or raises the PublishError that says why not."""

    def subscribe(self, consumer: Consumer) -> None:
        """Read for this consumer from now on."""
        self.backend.capabilities.check(consumer)
        plan, worker = self._plan, self._worker
        subscription = Subscription(
            plan.alias,
            consumer,
            hooks=self.hooks,
            counts=ConsumerCounts(
                plan.wait_buckets,
                plan.handler_buckets,
                # A consumer of exact types has no others to label.
                self._labels if consumer.has_patterns else None,
            ),
        )
        processor = Processor(
            consumer,
            broker=plan.alias,
            backend=self.backend.name,
            hooks=self.hooks,
            host=worker.host,
        )
        worker.attach(Server(subscription, self.backend, processor, worker.threads))
        self.backend.subscribe(subscription)
        self._subscriptions = {**self._subscriptions, consumer.name: subscription}

    def subscription(self, consumer: str) -> Subscription:
        """Return the subscription of a consumer, or raise ConfigurationError."""
        try:
            return self._subscriptions[consumer]
        except KeyError:
            raise ConfigurationError(
                f"Broker {self._plan.alias!r} has no consumer {consumer!r}; there are "
                f"{', '.join(self._subscriptions) or 'none'}.",
                consumer=consumer,
                broker=self._plan.alias,
            ) from None

    def start(self) -> None:
        """Start handler threads first, then the reader; idempotent.

        Raises BrokerClosedError after ``close``.
        """
        with self.process.lock:
            if self.is_closed:
                raise self.why_not_running()
            if not self.is_running:
                run_whole(self._start)

    def _start(self) -> None:
        # May hold no process.lock: who waits for it has that.
        with self._changing:
            if not (self.is_running or self.is_closed):
                self._worker.start()
                self.backend.start_reading()
                self.is_running = not self.is_closed

    def why_not_running(self, event: str | None = None) -> PublishError:
        """Return the error for who wants to publish where nothing runs."""
        alias = self._plan.alias
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
                run_whole(partial(self._end, began))
            assert self._remainder is not None  # noqa: S101 - _end() said it
            return self._remainder

    def _end(self, began: float) -> None:
        """Stop, and count what was left; once, whoever comes in between."""
        with self._changing:
            if self._remainder is None:
                self._stop()
                remainder = last_words(self._subscriptions.values(), began)
                self._remainder = remainder
                self.hooks.tell(lambda hook: hook.stopped(self._plan.alias, remainder))

    def _stop(self) -> None:
        self._step(self.backend.stop_reading)
        self._retire_worker()
        for subscription in self._subscriptions.values():
            self._step(self.backend.release, subscription, subscription.take_all())
        self._step(self.backend.close)

    def _step(self, call: Callable[..., object], *arguments: object) -> None:
        """Take one step of the stop; a server that is away keeps no other from it."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - the stop goes on
            failure = error
            self.hooks.tell(lambda hook: hook.failed("stop", failure))

    def _drain(self, deadline: float) -> None:
        is_nested, self._is_draining = self._is_draining, True
        try:
            run_whole(self._hurry)
            left = deadline - time.monotonic()
            while left > 0 and self._has_work(left):
                time.sleep(min(left, _POLL_SECONDS))
                left = deadline - time.monotonic()
        finally:
            self._is_draining = is_nested

    def _hurry(self) -> None:
        self._step(self.backend.stop_publishing)
        for subscription in self._subscriptions.values():
            subscription.in_hurry = True
            subscription.notify()

    def _has_work(self, seconds: float) -> bool:
        """Whether something could still be finished in that time."""
        if self.backend.pending(seconds) > 0:
            return True
        for one in self._subscriptions.values():
            # Permits are held through every step, so nothing is missed on its way.
            held = one.channel.held
            if one.in_flight or (not one.paused and held > one.scheduled(seconds)):
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
