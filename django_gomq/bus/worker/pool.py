"""The handler threads of a worker: started, replaced, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock, Thread, current_thread

from django_gomq.bus.process.clock import Clock

from .runner import ConsumerRunner


class HandlerThread:
    """One handler thread, and what it does now, which it alone writes."""

    def __init__(self, name: str, run: Callable[[HandlerThread], None]) -> None:
        """``run`` is all that the thread does."""
        self.thread = Thread(target=run, args=(self,), name=name, daemon=True)
        self.runner: ConsumerRunner | None = None
        """Whom it serves."""
        self.since = 0.0
        """Since when, by ``Clock.monotonic()``."""
        self.has_overrun = False
        """Whether it was told that this takes longer than its consumer's timeout."""
        self.is_given_up = False
        """Whether another thread stands in its place: it ends when it comes back."""


class HandlerPool:
    """As many handler threads as were asked for, beside those that were given up.

    Thread-safe; only ``join`` blocks.
    """

    def __init__(self, size: int, run: Callable[[HandlerThread], None]) -> None:
        """``run`` is what each thread does; it ends with it."""
        self._size = size
        self._run = run
        self._lock = Lock()
        self._places: list[HandlerThread | None] = [None] * size
        self._given_up: list[HandlerThread] = []
        self._is_closed = False
        self.is_started = False
        """Whether threads were asked for, and may have been had."""

    def start_missing(self) -> None:
        """Start the threads that do not run; idempotent, and none after ``close``.

        Raises RuntimeError, MemoryError or OSError where one cannot be had; those that
        were started stay, and the next call starts the others.
        """
        with self._lock:
            if self._is_closed:
                return
            self.is_started = True
            for index, place in enumerate(self._places):
                if place is None or not place.thread.is_alive():
                    started = HandlerThread(f"gomq-handler-{index + 1}", self._run)
                    started.thread.start()
                    self._places[index] = started

    def give_up(self, handler_thread: HandlerThread) -> bool:
        """Let another thread take its place; ``start_missing`` starts that one.

        Returns False where as many as the pool has places hang already.
        """
        with self._lock:
            self._given_up = [hung for hung in self._given_up if hung.thread.is_alive()]
            if len(self._given_up) >= self._size:
                return False
            handler_thread.is_given_up = True
            self._given_up.append(handler_thread)
            self._places[self._places.index(handler_thread)] = None
            return True

    def serving(self) -> Sequence[HandlerThread]:
        """Return those that were not given up."""
        return [place for place in list(self._places) if place is not None]

    def _all(self) -> Sequence[HandlerThread]:
        return [*self.serving(), *self._given_up]

    @property
    def alive(self) -> int:
        """How many threads live."""
        return sum(handler_thread.thread.is_alive() for handler_thread in self._all())

    @property
    def busy(self) -> int:
        """How many threads serve a consumer now."""
        return sum(handler_thread.runner is not None for handler_thread in self._all())

    @property
    def busy_ratio(self) -> float:
        """Which part of its places is taken by threads that serve a consumer now."""
        serving = sum(place.runner is not None for place in self.serving())
        return serving / self._size

    def starts(self) -> list[tuple[ConsumerRunner, float]]:
        """Return whom each busy thread serves, and since when (monotonic seconds)."""
        found = []
        for handler_thread in self._all():
            runner = handler_thread.runner  # first: what begins after it is younger
            if runner is not None:
                found.append((runner, handler_thread.since))
        return found

    def dead(self) -> list[int]:
        """Return the numbers, from 1, of places where no thread lives."""
        return [
            index + 1
            for index, place in enumerate(list(self._places))
            if place is None or not place.thread.is_alive()
        ]

    def close(self) -> None:
        """Start no thread any more."""
        with self._lock:
            self._is_closed = True

    def join(self, until: float) -> None:
        """Wait for all threads to end, up to a moment of ``Clock.monotonic()``."""
        for handler_thread in self._all():
            if handler_thread.thread is not current_thread():
                handler_thread.thread.join(max(0.0, until - Clock.monotonic()))
