"""Calls at later moments, deadlines, and what waits for its time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Lock, Thread, current_thread
from typing import Final, Generic, TypeVar

import msgspec

from .clock import Clock
from .fork import claim_thread

TICK_SECONDS: Final = 1.0  # the one regular wake-up of an idle process


class Deadline(msgspec.Struct, frozen=True):
    """A moment on the monotonic clock; None never comes."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the moment that many seconds from now; None stays None."""
        return cls(None if seconds is None else Clock.monotonic() + seconds)

    def left(self) -> float | None:
        """Return the seconds left; 0 if it has passed, None if it never comes."""
        return None if self.at is None else max(0.0, self.at - Clock.monotonic())


class Timers:
    """Runs callbacks when they are due, and regular ones every second.

    Thread-safe. Callbacks run on the timer thread and must not block; what they raise
    goes to ``on_error``.
    """

    def __init__(
        self,
        on_error: Callable[[BaseException], None],
        on_start: Callable[[], None] = claim_thread,
    ) -> None:
        """``on_start`` runs first on the timer thread."""
        self._on_error = on_error
        self._on_start = on_start
        self._changed = Condition()
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._regular: list[Callable[[], object]] = []
        self._thread: Thread | None = None
        self._stopped = False
        self.is_lost = False
        """Whether the thread has died and no other one could be had."""

    def start(self) -> None:
        """Start the timer thread if none runs; idempotent.

        Raises RuntimeError, MemoryError or OSError where it cannot be had; the next
        call tries again.
        """
        with self._changed:
            if not (self._stopped or self.is_alive):
                thread = Thread(target=self._run, name="gomq-timers", daemon=True)
                thread.start()
                self._thread, self.is_lost = thread, False

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Have ``call`` run once, that many seconds from now."""
        due = Clock.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._heap, (due, next(self._order), call))
            if self._heap[0][0] == due:
                self._changed.notify()

    def every_second(self, call: Callable[[], object]) -> None:
        """Have ``call`` run about once a second until ``cancel``; idempotent."""
        with self._changed:
            if call not in self._regular:
                self._regular = [*self._regular, call]

    def cancel(self, call: Callable[[], object]) -> None:
        """End a regular call."""
        with self._changed:
            self._regular = [known for known in self._regular if known != call]

    def stop(self) -> None:
        """End the thread; what is not due yet is forgotten. Idempotent."""
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        self._on_start()
        try:
            self._call_what_is_due()
        except BaseException as error:  # noqa: BLE001 - one that was put into the thread
            self._replace()
            self._on_error(error)

    def _replace(self) -> None:
        self._thread, self.is_lost = None, True
        with suppress(RuntimeError):  # it is not ours, or no more
            while True:  # it may have come between the lock and its with
                self._changed.release()
        with suppress(RuntimeError, MemoryError, OSError):
            self.start()

    def _call_what_is_due(self) -> None:
        next_tick = Clock.monotonic() + TICK_SECONDS
        while not self._stopped:
            for call in self._wait_for_due(next_tick):
                self._run_one(call)
            if Clock.monotonic() >= next_tick:
                for call in self._regular:
                    self._run_one(call)
                next_tick = Clock.monotonic() + TICK_SECONDS

    def _wait_for_due(self, until: float) -> list[Callable[[], object]]:
        with self._changed:
            first = self._heap[0][0] if self._heap else until
            pause = min(first, until) - Clock.monotonic()
            if pause > 0 and not self._stopped:
                self._changed.wait(pause)
            now = Clock.monotonic()
            due = []
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[2])
            return due

    def _run_one(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - the timer thread goes on
            self._on_error(error)


T = TypeVar("T")


class DelayQueue(Generic[T]):
    """Holds items until they are due, then hands each to ``give_back``, once.

    Thread-safe; ``give_back`` runs on the timer thread, without our lock.
    """

    def __init__(self, timers: Timers, give_back: Callable[[T], object]) -> None:
        self._timers = timers
        self._give_back = give_back
        self._lock = Lock()
        self._items: dict[int, tuple[float, T]] = {}
        self._keys = itertools.count().__next__

    def put(self, item: T, seconds: float) -> None:
        """Give this item back in that many seconds."""
        key = self._keys()
        with self._lock:
            self._items[key] = Clock.monotonic() + seconds, item
        self._timers.after(seconds, lambda: self._end(key))

    def _end(self, key: int) -> None:
        with self._lock:
            found = self._items.pop(key, None)
        if found is not None:
            self._give_back(found[1])

    def take_all(self) -> list[T]:
        """Remove and return everything; nothing of it is given back any more."""
        with self._lock:
            left = [item for _, item in self._items.values()]
            self._items.clear()
        return left

    def take_where(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return what is wanted of it; that is not given back any more."""
        with self._lock:
            found = {
                key: item for key, (_, item) in self._items.items() if is_wanted(item)
            }
            for key in found:
                del self._items[key]
        return list(found.values())

    def due_after(self, seconds: float = -math.inf) -> int:
        """Return how many items become due only after that time; all, without one."""
        until = Clock.monotonic() + seconds
        with self._lock:
            return sum(due > until for due, _ in self._items.values())

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)
