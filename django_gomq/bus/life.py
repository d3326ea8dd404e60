"""The life of a broker in one process: from its parts to its last words."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
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
from .message import Message
from .outcome import DropReason
from .plan import Plan
from .process import Process
from .processor import Processor
from .slices import Server
from .stats import BrokerStats, QueueStats, Remainder
from .subscription import Subscription
from .threads import is_bus_thread
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
        self._worker = self._find_worker()
        # A signal handler may close while its thread is closing.
        self._closing = RLock()
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
            )
        )

        self.handover = Handover(plan.alias, self.backend, self.hooks, self.refusals)
        is_watched = bool(self.hooks.publish_watchers)
        self.publish: Publish = (
            self.handover.publish_watched if is_watched else self.backend.publish
        )
        """Takes one message, or raises the PublishError that says why not."""

    def _find_worker(self) -> Worker:
        if self._plan.get_worker is not None:
            return self._plan.get_worker()
        return Worker(self._plan.threads, hooks=self.hooks)

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
        """Drain up to ``timeout`` seconds, stop, and say what was left; idempotent."""
        with self.process.lock:  # not in the midst of a start
            self.is_closed = True
            was_running, self.is_running = self.is_running, False
        with self._closing:
            if self._remainder is None:
                remainder = self._end(timeout if was_running else 0.0)
                if self._remainder is None:  # else a signal handler was faster
                    self._remainder = remainder
                    self.hooks.tell(
                        lambda hook: hook.stopped(self._plan.alias, remainder)
                    )
            return self._remainder

    def _end(self, timeout: float) -> Remainder:
        began = time.monotonic()
        backend = self.backend
        self._step(backend.stop_publishing)
        self._drain(began + timeout)
        self._step(backend.stop_reading)
        self._retire_worker()
        for subscription in self._subscriptions.values():
            self._step(backend.release, subscription, subscription.take_all())
        self._step(backend.close)
        return self._last_words(time.monotonic() - began)

    def _step(self, call: Callable[..., object], *arguments: object) -> None:
        """Take one step of the stop; a server that is away keeps no other from it."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - the stop goes on
            failure = error
            self.hooks.tell(lambda hook: hook.failed("stop", failure))

    def _drain(self, deadline: float) -> None:
        for subscription in self._subscriptions.values():
            subscription.in_hurry = True
            subscription.notify()
        left = deadline - time.monotonic()
        while left > 0 and self._has_work(left):
            time.sleep(min(left, _POLL_SECONDS))
            left = deadline - time.monotonic()

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

    def _last_words(self, seconds: float) -> Remainder:
        dropped: Counter[str] = Counter()
        in_flight = 0
        for subscription in self._subscriptions.values():
            in_flight += subscription.in_flight
            for (event, reason), count in subscription.counts.dropped.items():
                if reason is DropReason.SHUTDOWN:
                    dropped[event] += count
        return Remainder(dropped=dict(dropped), in_flight=in_flight, seconds=seconds)

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
