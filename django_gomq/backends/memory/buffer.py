"""The bounded, prioritised buffer that publishers put into.

Publishers share no lock. Every step that they share is one C call on a deque, atomic
under the interpreter lock, and guarded by the deque's own lock in builds without it.
The bound is a deque of permits: ``pop()`` raising IndexError *is* "full". A put costs
60 ns this way, and 450 with ``queue.Queue``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice, repeat
from typing import Final, Generic, TypeVar

from django_gomq.bus.channels.permits import PermitPool
from django_gomq.bus.message import DEFAULT_PRIORITY, PRIORITIES
from django_gomq.bus.process.clock import Clock

T = TypeVar("T")

LONG_PATIENCE: Final = 30.0
"""What was missing at each look of so many seconds is lost, whatever goes on."""

NEVER: Final = object()  # equal to no item, so that iter() ends by IndexError alone


class PublishBuffer(PermitPool, Generic[T]):
    """Many threads put, one takes; a taken item holds its permit until released.

    ``put`` never blocks. Items leave by ``take``: higher priorities first, then in the
    order of arrival. All methods are thread-safe.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._permits: deque[None] = deque(repeat(None, capacity))
        self.pop_permit: Final = self._permits.pop
        """Takes one permit, or raises IndexError: the first step of a put."""
        self.levels: Final = tuple(deque[T]() for _ in PRIORITIES)
        """Where an item of each priority is appended to: the second step."""
        self._suspicion: tuple[tuple[int, int, int], float] | None = None
        self._always: tuple[int, float] | None = None

    def put(self, item: T, priority: int = DEFAULT_PRIORITY) -> bool:
        """Add one item; return False, and leave it out, if the buffer is full."""
        try:
            self.pop_permit()
        except IndexError:
            return False
        self.levels[priority].append(item)
        return True

    def try_permit(self) -> bool:
        """Take one permit, or return False if there is none."""
        try:
            self.pop_permit()
        except IndexError:
            return False
        return True

    def try_permits(self, wanted: int) -> int:
        """Take up to that many permits; return how many there were."""
        return self._take_free(wanted)

    def put_permitted(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Add an item whose permit was taken."""
        self.levels[priority].append(item)

    def put_many_permitted(self, items: Iterable[T], priority: int) -> None:
        """Add items of one priority whose permits were taken."""
        self.levels[priority].extend(items)

    def take(self, most: int) -> list[T]:
        """Remove and return up to ``most`` items; they keep their permits."""
        return self.take_into([], most)

    def take_into(self, batch: list[T], most: int) -> list[T]:
        """Remove up to ``most`` items and append them to an empty list of any kind."""
        with self._lock:
            for level in reversed(self.levels):
                if level:
                    wanted = min(len(level), most - len(batch))
                    batch.extend(islice(iter(level.popleft, NEVER), wanted))
                    if len(batch) >= most:
                        break
            self._out += len(batch)
        return batch

    def put_again(self, item: T, priority: int) -> None:
        """Add an item that is held outside the buffer."""
        with self._lock:
            self.levels[priority].append(item)
            self._out -= 1

    def firsts(self) -> list[T]:
        """Return the next item of each priority that has any."""
        found: list[T] = []
        for level in self.levels:
            with suppress(IndexError):  # one look: it may be emptied meanwhile
                found.append(level[0])
        return found

    def __len__(self) -> int:
        """How many items wait here."""
        return sum(map(len, self.levels))

    def __bool__(self) -> bool:
        """Whether any item waits here."""
        return any(self.levels)

    def _take_free(self, wanted: int) -> int:
        taken: list[None] = []
        try:
            taken.extend(islice(iter(self.pop_permit, NEVER), wanted))
        except IndexError:
            pass  # extend() keeps what came before
        return len(taken)

    def _add_free(self, count: int) -> None:
        self._permits.extend(repeat(None, count))

    def _count_free(self) -> int:
        return len(self._permits)

    def reconcile(self, patience: float = 1.0) -> int:
        """Give back permits that were lost; return how many. To be called now and then.

        A signal handler's exception between the two steps of a put loses the permit.
        Such a permit is missing for good, one in a publisher's hands for moments. They
        look alike while others come and go: what is missing after ``patience`` seconds
        in which no permit was taken or given back counts as lost, and of a busy queue
        what was missing at each look of ``LONG_PATIENCE`` seconds.
        """
        with self._lock:
            waiting = len(self)  # first: what comes meanwhile looks missing
            held = self._count_held()
            missing = held - self._out - waiting
            if missing <= 0:
                # Fewer than none: one was thought lost while its process stood still.
                self._debt += -missing - self._take_free(-missing)
                self._suspicion = self._always = None
                return 0
            lost = self._judge(missing, held, patience)
            if not lost:
                return 0
            self._suspicion = self._always = None
            self._add_permits(lost)
            woken = self._pop_waiters(lost)
        for wake in woken:
            wake()
        return lost

    def _judge(self, missing: int, held: int, patience: float) -> int:
        """Return how many of the missing permits are lost; the caller has the lock."""
        now = Clock.monotonic()
        seen = missing, held, self.given_back
        if self._suspicion is None or self._suspicion[0] != seen:
            self._suspicion = seen, now
        least, since = self._always or (missing, now)
        least = min(least, missing)
        self._always = least, since
        if now - self._suspicion[1] >= patience:
            return missing
        return least if now - since >= LONG_PATIENCE else 0
