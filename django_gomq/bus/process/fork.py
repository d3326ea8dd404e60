"""Which process and which threads these are; what a forked child must forget."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from threading import RLock
from typing import Final, Protocol

_MADV_WIPEONFORK: Final = 18  # linux/mman.h; the mmap module has no name for it


class _Page(Protocol):
    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class _PidPage:
    """The mark where the kernel cannot wipe a page: asks for the pid each time."""

    def __init__(self) -> None:
        self._pid = 0

    def __getitem__(self, index: int) -> int:
        return self._pid == os.getpid()

    def __setitem__(self, index: int, value: int) -> None:
        self._pid = os.getpid()


def _make_page() -> _Page:
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except (OSError, ValueError, AttributeError):
        return _PidPage()
    return page


class Process:
    """One process, compared by identity; a forked child gets another one."""

    __slots__ = ("__weakref__", "drawn", "lock", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.drawn = int.from_bytes(os.urandom(4))
        """Random bits by which what it makes differs from what others make."""
        self.lock = RLock()
        """For what is made once in a process; never one that a parent may hold."""


class ForkAware(Protocol):
    """Somebody whose threads, locks and queues belong to one process."""

    def after_in_child(self, process: Process) -> None:
        """Forget, untouched, all that belongs to another process.

        Only swaps references; may be called more than once, and from racing threads.
        """


# The kernel hands a child this page wiped (madvise(2), MADV_WIPEONFORK), whoever
# forked: uWSGI forks without telling Python. Reading it costs 14 ns, os.getpid()
# up to 180 ns, and every publish asks.
is_same_process: Final = _make_page()
is_same_process[0] = 1
_current = Process()
_seats: dict[tuple[int, Process], Process] = {}
_fork_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def current() -> Process:
    """Return this process; thread-safe, takes no lock."""
    global _current  # noqa: PLW0603 - a process has one identity
    if not is_same_process[0]:
        # Threads of a fresh child may race to be the first; setdefault picks one,
        # and no lock is used that another thread of the parent could have held.
        parent, pid = _current, os.getpid()
        if parent.pid != pid:
            _current = _seats.setdefault((pid, parent), Process())
        for aware in list(_fork_aware):
            aware.after_in_child(_current)
        is_same_process[0] = 1
    return _current


def register(aware: ForkAware) -> None:
    """Have ``aware.after_in_child`` called when a forked child first asks who it is."""
    _fork_aware.add(aware)


_bus = threading.local()


def is_bus_thread() -> bool:
    """Whether the current thread belongs to the bus: it must never wait for room."""
    return getattr(_bus, "is_mine", False)


def claim_thread() -> None:
    """Mark the current thread as one of the bus."""
    _bus.is_mine = True


_end = threading.Event()


def start_no_more() -> None:
    """Note that the interpreter ends: the bus starts no thread from now on.

    Python 3.12.0 to 3.12.2 cannot start one then, wherever it is asked to.
    """
    _end.set()


def may_start() -> bool:
    """Whether the bus may still start threads for its own ends."""
    return not _end.is_set()
