"""Who has work, and the threads asleep until somebody has; it knows no work."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadyList(Generic[T]):
    """A first-in first-out list that threads sleep on; all methods are thread-safe.

    A waker pays for a wake-up only when somebody sleeps, and wakes one; a thread
    that was woken wakes the next one while more is waiting. No lock is shared: a
    sleeper puts its own held lock on the list, looks again, and only then waits.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._beds: deque[Lock] = deque()
        self.closed = False

    def add(self, item: T) -> None:
        """Append an item and wake one sleeper, if there is one. Does not block."""
        self._items.append(item)
        if self._beds:
            self._wake_one()

    def next(self, timeout: float = -1) -> T | None:
        """Return the first item; block while there is none.

        Returns None after ``timeout`` seconds (-1: never), and once closed.
        """
        until = time.monotonic() + timeout
        while True:
            item = self._pop()
            left = until - time.monotonic() if timeout >= 0 else -1
            if item is not None or self.closed or (timeout >= 0 and left <= 0):
                return item
            self._sleep(left)

    def _sleep(self, timeout: float) -> None:
        bed = Lock()
        bed.acquire()
        self._beds.append(bed)
        # Look again: what was added before the bed stood there woke nobody.
        if not self._items and not self.closed:
            bed.acquire(timeout=timeout)
        self._leave(bed)

    def _pop(self) -> T | None:
        try:
            item = self._items.popleft()
        except IndexError:
            return None
        if self._items and self._beds:
            self._wake_one()
        return item

    def _leave(self, bed: Lock) -> None:
        try:
            self._beds.remove(bed)
        except ValueError:
            pass  # woken: the waker took it off

    def _wake_one(self) -> None:
        try:
            # The latest sleeper first: the others stay idle and give resources back.
            self._beds.pop().release()
        except IndexError:
            pass

    def close(self) -> None:
        """Wake all sleepers for good; what is left is still handed out."""
        self.closed = True
        while self._beds:
            self._wake_one()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)
