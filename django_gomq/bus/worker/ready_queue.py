"""Who has work, and the threads asleep until somebody has."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

from django_gomq.bus.process.clock import Clock

T = TypeVar("T")


class ReadyQueue(Generic[T]):
    """A first-in first-out list that threads sleep on; all methods are thread-safe.

    A waker pays for a wake-up only when somebody sleeps and nobody is on the way
    already: a thread that was woken wakes the next one while more is waiting. No lock
    is shared: a sleeper puts its own held lock on the list, looks again, and only then
    waits.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        # A sleeper that is woken stays here until it has got up: somebody is on the way
        # then, and need not be called again. A wake-up costs 5 us, and where
        # five consumers get a message, one thread that comes for the first handles all
        # five before a second one would have begun.
        self._sleepers: deque[Lock] = deque()
        self.expects_caller = False
        """Whether a thread that is awake comes next: set by itself, and cleared before
        it does. What is added meanwhile wakes nobody."""
        self.closed = False

    def add(self, item: T) -> None:
        """Append an item and wake one sleeper, if there is one. Does not block."""
        self._items.append(item)
        if self._sleepers and not self.expects_caller:
            self._wake_one()

    def call(self, item: T) -> bool:
        """Wake a sleeper for this item, which comes before all others; never blocks.

        Returns False, and takes no item, where nobody sleeps who could come at once.
        """
        try:
            sleeper = self._sleepers[-1]
        except IndexError:
            return False
        self._items.appendleft(item)
        try:
            sleeper.release()
        except RuntimeError:  # it was woken for something else, which may be slow
            return not self._took_back(item)
        return True

    def _took_back(self, item: T) -> bool:
        try:
            self._items.remove(item)
        except ValueError:
            return False  # it was taken
        return True

    @property
    def has_sleepers(self) -> bool:
        """Whether somebody sleeps, or was woken and has not got up."""
        return bool(self._sleepers)

    def wake(self) -> None:
        """Wake one sleeper, if something waits and somebody sleeps."""
        if self._items and self._sleepers:
            self._wake_one()

    def take(self) -> T | None:
        """Return the first item, or None; never blocks."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    def add_quietly(self, item: T) -> bool:
        """Append an item and wake nobody; return whether somebody sleeps.

        For a thread that calls ``next`` itself, or sees to it that another one does.
        """
        self._items.append(item)
        return bool(self._sleepers)

    def next(self, timeout: float = -1) -> T | None:
        """Return the first item; block while there is none.

        Returns None after ``timeout`` seconds (-1: never), and once closed.
        """
        item = self._pop()
        if item is not None or self.closed:
            return item
        until = Clock.monotonic() + timeout
        while True:
            left = until - Clock.monotonic() if timeout >= 0 else -1
            if timeout >= 0 and left <= 0:
                return None
            self._sleep(left)
            item = self._pop()
            if item is not None or self.closed:
                return item

    def _sleep(self, timeout: float) -> None:
        sleeper = Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        # Look again: what was added before the sleeper stood there woke nobody.
        if not self._items and not self.closed:
            sleeper.acquire(timeout=timeout)
        # Before the next look at the items: what is added from here on wakes others.
        self._sleepers.remove(sleeper)

    def _pop(self) -> T | None:
        try:
            item = self._items.popleft()
        except IndexError:
            return None
        if self._items and self._sleepers:
            self._wake_one()
        return item

    def _wake_one(self) -> None:
        try:
            # The latest sleeper: the others stay idle and give resources back.
            sleeper = self._sleepers[-1]
            if sleeper.locked():
                sleeper.release()
        except (IndexError, RuntimeError):
            pass  # it has got up, or another waker was faster

    def close(self) -> None:
        """Wake all sleepers for good; what is left is still handed out."""
        self.closed = True
        for sleeper in self._sleepers.copy():
            try:
                sleeper.release()
            except RuntimeError:
                pass  # it is awake already

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)
