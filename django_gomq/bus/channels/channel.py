"""The bounded, prioritised buffer of one consumer.

Items come and leave in chunks. A chunk of a few hundred, shared by all consumers of a
type, is one entry of each channel: to hand it on costs the same as to hand on one item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Generic, TypeVar

from django_gomq.bus.message import DEFAULT_PRIORITY, PRIORITIES

from .permits import PermitPool

T = TypeVar("T")


Join = Callable[[Sequence[Sequence[T]]], Sequence[T]]
"""Makes one chunk of several."""


def flatten(chunks: Sequence[Sequence[T]]) -> Sequence[T]:
    """Return the items of all chunks."""
    return list(chain.from_iterable(chunks))


class Channel(PermitPool, Generic[T]):
    """A bounded buffer with ten priorities; an item holds its permit until released.

    Items leave by ``take``: higher priorities first, then in the order of arrival. What
    was taken still holds its permit, so capacity bounds all that is waiting, scheduled
    and in work, until ``release`` gives the room back. Thread-safe, and never blocks.
    """

    def __init__(self, capacity: int, join: Join[T] = flatten) -> None:
        super().__init__(capacity)
        self._join = join
        # No chunk is empty, and none is ever changed: others may hold it too.
        self._levels: list[deque[Sequence[T]]] = [deque() for _ in PRIORITIES]
        self._waiting = 0

    def put(self, item: T, priority: int = DEFAULT_PRIORITY) -> bool:
        """Add one item; return False, and leave it out, if the buffer is full."""
        if not self.try_permit():
            return False
        self.put_permitted((item,), priority)
        return True

    def put_chunk(self, items: Sequence[T], priority: int) -> int:
        """Add as much of a chunk as there is room for; return how much that is.

        The chunk belongs to the channel and its other holders: nobody may change it.
        """
        with self._lock:
            room = self._take_free(len(items))
            if room:
                fits = items if room == len(items) else items[:room]
                self._levels[priority].append(fits)
                self._waiting += room
        return room

    def put_permitted(
        self, items: Sequence[T], priority: int = DEFAULT_PRIORITY
    ) -> None:
        """Add a chunk of items of one priority whose permits were taken."""
        with self._lock:
            self._levels[priority].append(items)
            self._waiting += len(items)

    def take(self, most: int) -> Sequence[T]:
        """Remove and return up to ``most`` items; they keep their permits.

        What is returned may be a chunk as it was put, so nobody may change it.
        """
        chunks: list[Sequence[T]] = []
        with self._lock:
            wanted = min(most, self._waiting)
            self._out += wanted
            self._waiting -= wanted
            for level in reversed(self._levels):  # pragma: no branch - it breaks
                while level and wanted:
                    chunk = level.popleft()
                    if len(chunk) > wanted:
                        level.appendleft(chunk[wanted:])
                        chunk = chunk[:wanted]
                    wanted -= len(chunk)
                    chunks.append(chunk)
                if not wanted:
                    break
        if len(chunks) == 1:
            return chunks[0]
        return self._join(chunks) if chunks else ()

    def take_where(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return all items for which this holds; they keep their permits."""
        taken: list[T] = []
        with self._lock:
            for level in reversed(self._levels):
                kept: list[T] = []
                for item in chain.from_iterable(level):
                    (taken if is_wanted(item) else kept).append(item)
                level.clear()
                if kept:
                    level.append(kept)
            self._waiting -= len(taken)
            self._out += len(taken)
        return taken

    def put_back(self, items: Sequence[tuple[T, int]]) -> None:
        """Return taken items, each with its priority, to the front, in their order."""
        with self._lock:
            for item, priority in reversed(items):
                self._levels[priority].appendleft((item,))
            self._waiting += len(items)
            self._out -= len(items)

    def put_again(self, item: T, priority: int) -> None:
        """Return a taken item at the end of its priority."""
        with self._lock:
            self._levels[priority].append((item,))
            self._waiting += 1
            self._out -= 1

    def evict_oldest(self, up_to: int) -> T | None:
        """Remove the oldest item of the lowest priority; its permit goes to the caller.

        Returns None if nothing waits at priority ``up_to`` or below it.
        """
        with self._lock:
            for level in self._levels[: up_to + 1]:
                if level:
                    first, *rest = level.popleft()
                    if rest:
                        level.appendleft(rest)
                    self._waiting -= 1
                    return first
        return None

    def firsts(self) -> list[T]:
        """Return the next item of each priority that has any, highest first."""
        with self._lock:
            return [level[0][0] for level in reversed(self._levels) if level]

    def __len__(self) -> int:
        """How many items wait here."""
        return self._waiting

    def __bool__(self) -> bool:
        """Whether any item waits here."""
        return self._waiting > 0
