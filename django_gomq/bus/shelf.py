"""What waits for its time: delayed messages and retries; it knows neither."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from .timers import Timers

T = TypeVar("T")


class Shelf(Generic[T]):
    """Holds items until they are due, then hands each to ``give_back``, once.

    Thread-safe; ``give_back`` runs on the timer thread, without the shelf's lock.
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
            self._items[key] = time.monotonic() + seconds, item
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

    def due_after(self, seconds: float = -math.inf) -> int:
        """Return how many items become due only after that time; all, without one."""
        until = time.monotonic() + seconds
        with self._lock:
            return sum(due > until for due, _ in self._items.values())

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)
