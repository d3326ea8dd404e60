"""The bounded, prioritised buffer under queues and channels; it knows no consumer.

Like its permits, items are put by one C call and no lock. Who takes items out does
so for whole batches, under the lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from .message import DEFAULT_PRIORITY, PRIORITIES
from .permits import NEVER, Permits

T = TypeVar("T")


class Channel(Permits, Generic[T]):
    """A bounded buffer with ten priorities; an item holds its permit until released.

    ``put`` and ``put_many_permitted`` never block and may be called from any thread,
    as may all other methods. Items leave by ``take``: higher priorities first, then in
    the order of arrival. What was taken still holds its permit, so capacity bounds all
    that is waiting, scheduled and in work, until ``release`` gives the room back.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._levels: list[deque[T]] = [deque() for _ in PRIORITIES]
        self._level_of = self._levels[::-1]  # by priority; _levels is highest first

    # Taking a permit, and putting the item, are the two steps of a publisher. They
    # are public apart so that the hot path can look around between them.

    def put_permitted(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Add an item whose permit was taken with ``try_permit``."""
        self._level_of[priority].append(item)

    def put(self, item: T, priority: int = DEFAULT_PRIORITY) -> bool:
        """Add one item; return False, and leave it out, if the buffer is full."""
        try:
            self._permits.pop()
        except IndexError:
            return False
        self._level_of[priority].append(item)
        return True

    def put_many_permitted(self, items: Iterable[T], priority: int) -> None:
        """Add items of one priority whose permits were taken."""
        self._level_of[priority].extend(items)

    def take(self, most: int) -> list[T]:
        """Remove and return up to ``most`` items; they keep their permits."""
        batch: list[T] = []
        with self._lock:
            for level in self._levels:
                if level:
                    wanted = min(len(level), most - len(batch))
                    batch.extend(islice(iter(level.popleft, NEVER), wanted))
                    if len(batch) >= most:
                        break
            self._out += len(batch)
        return batch

    def take_where(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return all items for which this holds; they keep their permits."""
        batch: list[T] = []
        with self._lock:
            for level in self._levels:
                # As many as there are now: publishers append meanwhile.
                items = list(islice(iter(level.popleft, NEVER), len(level)))
                kept: list[T] = []
                for item in items:
                    (batch if is_wanted(item) else kept).append(item)
                level.extendleft(reversed(kept))
            self._out += len(batch)
        return batch

    def put_back(self, items: Sequence[tuple[T, int]]) -> None:
        """Return taken items, each with its priority, to the front, in their order."""
        with self._lock:
            for item, priority in reversed(items):
                self._level_of[priority].appendleft(item)
            self._out -= len(items)

    def put_again(self, item: T, priority: int) -> None:
        """Return a taken item at the end of its priority."""
        with self._lock:
            self._level_of[priority].append(item)
            self._out -= 1

    def evict_oldest(self, up_to: int) -> T | None:
        """Remove the oldest item of the lowest priority; its permit goes to the caller.

        Returns None if nothing waits at priority ``up_to`` or below it.
        """
        with self._lock:
            for level in self._level_of[: up_to + 1]:
                if level:
                    return level.popleft()
        return None

    def firsts(self) -> list[T]:
        """Return the next item of each priority that has any, highest first."""
        with self._lock:
            return [level[0] for level in self._levels if level]

    def _count_waiting(self) -> int:
        return sum(map(len, self._levels))

    def __len__(self) -> int:
        """How many items wait here."""
        return sum(map(len, self._levels))

    def __bool__(self) -> bool:
        """Whether any item waits here."""
        return any(self._levels)
