"""What a broker accepted and did not finish: waits for it, and says what it was."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Final

from django_gomq.bus.backend import Reader
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import DropReason
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.stats import Remainder

from .worker import Worker

POLL_SECONDS: Final = 0.005  # a drain looks at its own numbers this often
BACKGROUND_SECONDS: Final = 10.0
"""A drain without limit waits no longer for tasks that may be made to run for ever."""
TELL_SECONDS: Final = 5.0  # and tells observers how far it is


class Drain:
    """The work of one broker in one process, to its end. Thread-safe."""

    def __init__(
        self, broker: str, reader: Reader, worker: Worker, hooks: Hooks
    ) -> None:
        self._broker = broker
        self._reader = reader
        self._worker = worker
        self._hooks = hooks
        self._subscriptions: tuple[Subscription, ...] = ()
        self._latest = math.inf
        self._lock = RLock()  # as a signal handler may close in the midst of a close

    def add(self, subscription: Subscription) -> None:
        """Wait for what this subscription holds, too."""
        self._subscriptions = (*self._subscriptions, subscription)

    @property
    def has_async(self) -> bool:
        """Whether async handlers may have started tasks of their own."""
        return any(
            subscription.consumer.is_async for subscription in self._subscriptions
        )

    def has_work(self, seconds: float = math.inf) -> bool:
        """Whether something could still be finished in that time; asks no server."""
        before = self._count_dispatched()
        if self._sees_work(seconds):
            return True
        # A handler may have emitted, and ended, between two of our looks.
        return self._reader.pending(seconds) > 0 or self._count_dispatched() != before

    def _count_dispatched(self) -> int:
        # No lock: a signal handler that closes may come in the midst of it.
        return sum(
            sum(list(subscription.counts.dispatched.values()))
            for subscription in self._subscriptions
        )

    def _sees_work(self, seconds: float) -> bool:
        if self._reader.pending(seconds) > 0:
            return True
        for subscription in self._subscriptions:
            # Permits are held through every step, so nothing is missed on its way.
            if subscription.in_flight or subscription.unsettled:
                return True
            held = subscription.channel.held + subscription.spilled
            if held > subscription.scheduled(seconds) and subscription.may_start_now():
                return True
        return False

    def hurry(self, latest: float) -> None:
        """Have whoever waits end by then, by ``Clock.monotonic()``."""
        with self._lock:
            self._latest = min(latest, self._latest)

    def relax(self) -> None:
        """Let whoever waits take its own time again."""
        self._latest = math.inf

    def wait(self, deadline: float, is_over: Callable[[], bool]) -> None:
        """Block while there is work, up to the deadline, and tell how far it is."""
        began = Clock.monotonic()
        tell_after = TELL_SECONDS
        while not is_over():
            now = Clock.monotonic()
            left = min(deadline, self._latest) - now
            if left <= 0 or not self.has_work(left):
                return
            if now - began >= tell_after:
                self._tell(now - began)
                tell_after += TELL_SECONDS
            time.sleep(min(left, POLL_SECONDS))

    def wait_for_background(self, deadline: float, is_over: Callable[[], bool]) -> None:
        """Block as long for tasks that async handlers started; they may be endless."""
        deadline = min(deadline, Clock.monotonic() + BACKGROUND_SECONDS)
        while self.has_async and self._worker.has_background and not is_over():
            left = min(deadline, self._latest) - Clock.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_SECONDS))

    def _tell(self, seconds: float) -> None:
        left = max(0, self._reader.pending(math.inf))
        left += sum(
            subscription.channel.held + subscription.spilled
            for subscription in self._subscriptions
        )
        self._hooks.notify(lambda hook: hook.draining(self._broker, left, seconds))

    def report(
        self, began: float, unsettled: int = 0, background: Sequence[str] = ()
    ) -> Remainder:
        """Return what was left by a stop that began then, by ``Clock.monotonic()``."""
        dropped: Counter[str] = Counter()
        in_flight = spilled = 0
        for subscription in self._subscriptions:
            in_flight += subscription.in_flight
            spilled += subscription.spilled
            for (event, reason), count in subscription.counts.dropped.items():
                if reason is DropReason.SHUTDOWN:
                    dropped[event] += count
        return Remainder(
            dropped=dict(dropped),
            in_flight=in_flight,
            background=background,
            unsettled=unsettled,
            spilled=spilled,
            seconds=Clock.monotonic() - began,
        )
