"""How many items a buffer may hold, changeable while it is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, Lock

from django_gomq.bus.consumer import MAX_CAPACITY
from django_gomq.bus.errors import ConfigurationError

Wake = Callable[[], object]


class PermitPool:
    """A number of permits that can be changed while they are in use.

    ``try_permit`` and ``try_permits`` never block; all methods are thread-safe.
    """

    def __init__(self, capacity: int) -> None:
        check_capacity(capacity)
        self._lock = Lock()
        self._free = capacity
        self._capacity = capacity
        self._debt = 0  # permits that a shrink could not find; releases pay them
        self._out = 0  # held by items that were taken, or that are scheduled
        self._waiters: deque[Wake] = deque()
        self.given_back = 0
        """All permits that ever came back."""
        self.closed = False

    def try_permit(self) -> bool:
        """Take one permit, or return False if there is none."""
        return bool(self.try_permits(1))

    def try_permits(self, wanted: int) -> int:
        """Take up to that many permits; return how many there were."""
        with self._lock:
            return self._take_free(wanted)

    # These three are all that a subclass needs to keep its permits in another way. The
    # caller holds the lock.

    def _take_free(self, wanted: int) -> int:
        taken = min(wanted, self._free)
        self._free -= taken
        return taken

    def _add_free(self, count: int) -> None:
        self._free += count

    def _count_free(self) -> int:
        return self._free

    def force_permit(self) -> None:
        """Take one permit, above the capacity if need be, for an item held elsewhere.

        A later release pays for it.
        """
        with self._lock:
            if not self._take_free(1):
                self._debt += 1
            self._out += 1

    def release(self, count: int) -> None:
        """Give back the permits of that many taken items, and call who waits."""
        with self._lock:
            self._out -= count
            self._add_permits(count)
            woken = self._pop_waiters(count) if self._waiters else ()
        for wake in woken:
            wake()

    def return_permits(self, count: int) -> None:
        """Give back permits that were taken for items that never came."""
        with self._lock:
            self._add_permits(count)
            woken = self._pop_waiters(count) if self._waiters else ()
        for wake in woken:
            wake()

    def _add_permits(self, count: int) -> None:
        self.given_back += count
        if self._debt:
            paid = min(count, self._debt)
            self._debt -= paid
            count -= paid
        self._add_free(count)

    def _pop_waiters(self, most: int) -> list[Wake]:
        return [self._waiters.popleft() for _ in range(min(most, len(self._waiters)))]

    def call_when_room(self, wake: Wake) -> bool:
        """Have ``wake`` called once, soon after a permit comes back or at close.

        Returns False, and forgets it, if there is room already or never will be.
        ``wake`` runs on the thread that releases and must not block; one that waits
        already is not called twice.
        """
        with self._lock:
            if self._count_free() or self.closed:
                return False
            if wake not in self._waiters:
                self._waiters.append(wake)
            return True

    def pass_room_on(self) -> None:
        """Call who waits, as one that was called makes no use of the room."""
        with self._lock:
            woken = self._pop_waiters(self._count_free())
        for wake in woken:
            wake()

    def wait_for_room(self, timeout: float) -> bool:
        """Block until there may be room or the buffer is closed; False on timeout."""
        sleeper = Lock()
        sleeper.acquire()
        wake = sleeper.release
        woken = False
        try:
            if not self.call_when_room(wake):
                return True
            woken = sleeper.acquire(timeout=min(timeout, TIMEOUT_MAX))
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
        # Signal handlers raise at calls alone, and the last one here makes the first
        # change: what is raised finds all of them made, or none.
        change = capacity - self._capacity
        if change >= 0:
            added = max(0, change - self._debt)
            self._add_free(added)
            self._debt -= change - added
            self.given_back += change
        else:
            self._debt += -change - self._take_free(-change)
        self._capacity = capacity

    def _count_held(self) -> int:
        return self._capacity + self._debt - self._count_free()

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
        return self._count_free()

    @property
    def has_room(self) -> bool:
        """Whether a put would be taken now."""
        return self._count_free() > 0


def check_capacity(capacity: int) -> None:
    """Raise ConfigurationError if this is no capacity: a whole number from 1."""
    is_whole = isinstance(capacity, int) and not isinstance(capacity, bool)
    if not (is_whole and 1 <= capacity <= MAX_CAPACITY):
        raise ConfigurationError(
            f"capacity is {capacity!r:.120}: give a whole number from 1 to "
            f"{MAX_CAPACITY:,} (every queue is bounded, and has its places ready)."
        )
