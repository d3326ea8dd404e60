"""The thread that moves spilled messages between channels and their store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Final

from django_gomq.bus.channels.spilling import (
    ADOPT_SECONDS,
    SpillingSubscription,
    SpillStore,
)
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import claim_thread

CHECK_SECONDS: Final = 2.0
BEAT_SECONDS: Final = 10.0
MAX_BACKOFF: Final = 2.0  # seconds
STOP_PAUSE: Final = 0.1
"""Seconds between two tries of a stop."""
_never: Final = Event()


class Spiller:
    """Serves the consumers of one broker that spill; thread-safe.

    The dispatcher and handler threads only wake it: what a store takes its time for
    holds up nobody else.
    """

    def __init__(
        self, store: SpillStore, on_error: Callable[[BaseException], object]
    ) -> None:
        """``on_error`` is told once for each outage of the store."""
        self._store = store
        self._on_error = on_error
        self._subscriptions: tuple[SpillingSubscription, ...] = ()
        self._lock = Lock()
        self._work = Event()
        self._thread: Thread | None = None
        self._is_stopping = False
        self._stop_by = 0.0
        self._failures = 0
        self._beat_at = 0.0

    def add(self, subscription: SpillingSubscription) -> None:
        """Serve this subscription too."""
        self._subscriptions = (*self._subscriptions, subscription)

    def wake(self) -> None:
        """Have it look soon. Does not block."""
        self._work.set()

    def start(self) -> None:
        """Start the thread; idempotent.

        Blocks up to CHECK_SECONDS for the store. Raises ConfigurationError where that
        can keep nothing, and RuntimeError where no thread can start.
        """
        with self._lock:
            if self._thread is not None:
                return
            checked: SimpleQueue[BaseException | None] = SimpleQueue()
            # On that thread: ours may be an event loop's, where Django asks nothing.
            thread = Thread(
                target=self._run, args=(checked,), name="gomq-spill", daemon=True
            )
            thread.start()
            with suppress(Empty):
                if problem := checked.get(timeout=CHECK_SECONDS):
                    raise problem
            self._thread = thread

    def stop(self, timeout: float) -> None:
        """Store all that is left; idempotent, blocks up to ``timeout`` seconds.

        What is not stored by then is dropped.
        """
        with self._lock:
            self._stop_by = Clock.monotonic() + timeout
            self._is_stopping = True
            self._work.set()
            if self._thread is not None:
                self._thread.join(timeout)
        for subscription in self._subscriptions:
            subscription.end_spilling()

    def _run(self, checked: SimpleQueue[BaseException | None]) -> None:
        claim_thread()
        try:
            self._store.check()
        except ConfigurationError as error:
            checked.put(error)
            return
        except BaseException as error:  # noqa: BLE001 - it may answer later
            self._on_error(error)
        checked.put(None)
        while True:
            self._work.clear()
            if self._is_stopping:  # looked at after that: a stop sets it first
                break
            if self._look():
                self._wait_out_failure()
            else:
                self._work.wait(ADOPT_SECONDS)
        self._end()

    def _wait_out_failure(self) -> None:
        pause = min(MAX_BACKOFF, 0.05 * 2 ** min(self._failures, 10))
        until = Clock.monotonic() + pause
        while (left := until - Clock.monotonic()) > 0:
            self._work.clear()
            if self._is_stopping:
                return
            self._work.wait(left)

    def _look(self) -> bool:
        """Serve each subscription once; return whether the store failed."""
        steps: list[Callable[[], object]] = [self._beat]
        steps += [
            partial(subscription.exchange, self._store)
            for subscription in self._subscriptions
        ]
        failure: BaseException | None = None
        for step in steps:
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - whatever a client raises
                failure = error
        if failure is None:
            self._failures = 0
            return False
        if not self._failures:
            self._on_error(failure)
        self._failures += 1
        return True

    def _beat(self) -> None:
        now = Clock.monotonic()
        if now < self._beat_at or not any(
            subscription.has_stored for subscription in self._subscriptions
        ):
            return
        self._store.beat()
        self._beat_at = now + BEAT_SECONDS

    def _end(self) -> None:
        left: Sequence[SpillingSubscription] = self._subscriptions
        while left := self._write_all(left):
            if Clock.monotonic() + STOP_PAUSE >= self._stop_by:
                break
            _never.wait(STOP_PAUSE)
        try:
            self._store.leave()
        except BaseException as error:  # noqa: BLE001 - the stop goes on
            self._on_error(error)

    def _write_all(
        self, subscriptions: Sequence[SpillingSubscription]
    ) -> Sequence[SpillingSubscription]:
        """Store all that they have; return those where the store failed."""
        left = []
        for subscription in subscriptions:
            try:
                subscription.write_all(self._store)
            except BaseException as error:  # noqa: BLE001 - another try, if there is time
                left.append(subscription)
                if not self._failures:
                    self._on_error(error)
                self._failures += 1
        return left
