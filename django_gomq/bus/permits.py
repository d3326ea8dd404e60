"""The bound of a buffer: who may still put something in; it knows no item.

Publishers share no lock: a permit is taken by one C call, atomic under the
interpreter lock, and ``pop()`` raising IndexError *is* "full". Who gives permits
back does so for whole batches, under the lock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice, repeat
from threading import TIMEOUT_MAX, Lock
from typing import Final

from .errors import ConfigurationError

NEVER: Final = object()  # equal to no item, so that iter() ends by IndexError alone

Wake = Callable[[], object]


class Permits:
    """A number of permits that can be changed while they are in use.

    ``try_permit`` and ``try_permits`` never block; all methods are thread-safe.
    """

    def __init__(self, capacity: int) -> None:
        check_capacity(capacity)
        self._lock = Lock()
        self._permits: deque[None] = deque(repeat(None, capacity))
        self._capacity = capacity
        self._debt = 0  # permits that a shrink could not find; releases pay them
        self._out = 0  # held by items that were taken, or that are scheduled
        self._given_back = 0  # all permits that ever came back
        self._suspicion: tuple[tuple[int, int, int], float] | None = None
        self._waiters: deque[Wake] = deque()
        self.closed = False

    def try_permit(self) -> bool:
        """Take one permit, or return False if there is none."""
        try:
            self._permits.pop()
        except IndexError:
            return False
        return True

    def try_permits(self, wanted: int) -> int:
        """Take up to that many permits; return how many there were."""
        taken: list[None] = []
        try:
            taken.extend(islice(iter(self._permits.pop, NEVER), wanted))
        except IndexError:
            pass  # extend() keeps what came before
        return len(taken)

    def hold(self, count: int = 1) -> None:
        """Note that permits are held by items outside the buffer (scheduled ones)."""
        with self._lock:
            self._out += count

    def release(self, count: int) -> None:
        """Give back the permits of that many taken items, and call who waits."""
        with self._lock:
            self._out -= count
            self._add_permits(count)
            woken = self._pop_waiters(count)
        for wake in woken:
            wake()

    def return_permits(self, count: int) -> None:
        """Give back permits that were taken for items that never came."""
        self.hold(count)
        self.release(count)

    def _add_permits(self, count: int) -> None:
        paid = min(count, self._debt)
        self._debt -= paid
        self._given_back += count
        self._permits.extend(repeat(None, count - paid))

    def _pop_waiters(self, most: int) -> list[Wake]:
        return [self._waiters.popleft() for _ in range(min(most, len(self._waiters)))]

    def call_when_room(self, wake: Wake) -> bool:
        """Have ``wake`` called once, soon after a permit comes back or at close.

        Returns False, and forgets it, if there is room already or never will be.
        ``wake`` runs on the thread that releases and must not block; one that waits
        already is not called twice.
        """
        with self._lock:
            if self._permits or self.closed:
                return False
            if wake not in self._waiters:
                self._waiters.append(wake)
            return True

    def pass_room_on(self) -> None:
        """Call who waits, as one that was called makes no use of the room."""
        with self._lock:
            woken = self._pop_waiters(len(self._permits))
        for wake in woken:
            wake()

    def wait_for_room(self, timeout: float) -> bool:
        """Block until there may be room or the buffer is closed; False on timeout."""
        bed = Lock()
        bed.acquire()
        wake = bed.release
        if not self.call_when_room(wake):
            return True
        woken = False
        try:
            woken = bed.acquire(timeout=min(timeout, TIMEOUT_MAX))
        except BaseException:  # raised by a signal handler
            if not self._forget(wake):
                self.pass_room_on()  # we had been called: another one shall have it
            raise
        return woken or not self._forget(wake)

    def _forget(self, wake: Wake) -> bool:
        with self._lock:
            if wake not in self._waiters:
                return False  # woken at the last moment: the room may be ours
            self._waiters.remove(wake)
            return True

    def resize(self, capacity: int) -> None:
        """Change the capacity at once; a shrink is paid by the next releases.

        Raises ConfigurationError if ``capacity`` is not a whole number from 1.
        """
        check_capacity(capacity)
        with self._lock:
            if not self.closed:
                self._set_capacity(capacity)
            woken = self._pop_waiters(len(self._waiters))
        for wake in woken:
            wake()

    def close(self) -> None:
        """Refuse all further items; what waits can still be taken. Idempotent."""
        with self._lock:
            self.closed = True
            self._set_capacity(0)
            woken = self._pop_waiters(len(self._waiters))
        for wake in woken:
            wake()

    def _set_capacity(self, capacity: int) -> None:
        change = capacity - self._capacity
        self._capacity = capacity
        if change >= 0:
            self._add_permits(change)
        else:
            self._debt += -change - self.try_permits(-change)

    def reconcile(self, patience: float = 1.0) -> int:
        """Give back permits that were lost; return how many. To be called now and then.

        A signal handler's exception between a publisher's two steps loses the permit.
        Such a permit is missing for good, one in a publisher's hands for moments. They
        look alike while others come and go: only what is missing after ``patience``
        seconds in which no permit was taken or given back counts as lost.
        """
        with self._lock:
            waiting = self._count_waiting()  # first: what comes meanwhile looks missing
            held = self._count_held()
            missing = held - self._out - waiting
            now = time.monotonic()
            if missing <= 0:
                # Fewer than none: one was thought lost while its process stood still.
                self._debt += -missing - self.try_permits(-missing)
                self._suspicion = None
                return 0
            seen = missing, held, self._given_back
            if self._suspicion is None or self._suspicion[0] != seen:
                self._suspicion = seen, now
            if now - self._suspicion[1] < patience:
                return 0
            self._suspicion = None
            self._add_permits(missing)
            woken = self._pop_waiters(missing)
        for wake in woken:
            wake()
        return missing

    def _count_waiting(self) -> int:
        """Return how many items wait with a permit of theirs."""
        return 0

    def _count_held(self) -> int:
        return self._capacity + self._debt - len(self._permits)

    @property
    def capacity(self) -> int:
        """How many items may hold a permit; 0 once closed."""
        return self._capacity

    @property
    def held(self) -> int:
        """How many permits are held: waiting, scheduled and in work."""
        with self._lock:
            return self._count_held()

    @property
    def room(self) -> int:
        """How many puts would be taken now; it only grows for who alone puts."""
        return len(self._permits)

    @property
    def has_room(self) -> bool:
        """Whether a put would be taken now."""
        return bool(self._permits)


def check_capacity(capacity: int) -> None:
    """Raise ConfigurationError if this is no capacity: a whole number from 1."""
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        raise ConfigurationError(
            f"capacity is {capacity!r}: give a whole number from 1 (every queue is "
            "bounded)."
        )
