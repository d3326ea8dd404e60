"""Which process and which threads these are; what a forked child must forget."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from threading import RLock
from types import BuiltinFunctionType
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
_children: dict[tuple[int, Process], Process] = {}
_fork_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def current() -> Process:
    """Return this process; thread-safe, takes no lock."""
    global _current  # noqa: PLW0603 - a process has one identity
    if not is_same_process[0]:
        # Threads of a fresh child may race to be the first; setdefault picks one,
        # and no lock is used that another thread of the parent could have held.
        parent, pid = _current, os.getpid()
        if parent.pid != pid:
            _current = _children.setdefault((pid, parent), Process())
        for aware in list(_fork_aware):
            aware.after_in_child(_current)
        is_same_process[0] = 1
    return _current


def register(aware: ForkAware) -> None:
    """Have ``aware.after_in_child`` called when a forked child first asks who it is."""
    _fork_aware.add(aware)


def end_if_forked(
    process: Process, find_error: Callable[[], BaseException | None]
) -> None:
    """End this process if it is not that one: a handler has forked, and come back.

    It has no thread of its parent's but the handler's, which would wait for ever for
    messages of the parent. What the handler raised is told, and makes the status, as
    at any end.
    """
    if current() is process:
        return
    status = 1
    try:
        status = _status_of(find_error())
        # What concurrent.futures and the bus have to do at an end, as multiprocessing
        # has it; atexit is the parent's.
        getattr(threading, "_shutdown", int)()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


def _status_of(error: BaseException | None) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return error.code or 0
    if error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
    return int(error is not None)


_bus = threading.local()


def is_bus_thread() -> bool:
    """Whether the current thread belongs to the bus: it must never wait for room."""
    return getattr(_bus, "is_mine", False)


def claim_thread() -> None:
    """Mark the current thread as one of the bus."""
    _bus.is_mine = True


_handles: ContextVar[bool] = ContextVar("gomq_handles", default=False)
_of_handlers = Context()
_of_handlers.run(_handles.set, True)

handler_context: Final = _of_handlers.copy
"""Returns a context of its own for one handler. Whatever thread or loop a handler goes
on in takes its context along, and with it that nobody there may wait."""


def works_for_bus() -> bool:
    """Whether the bus, or one of its handlers, waits for the current thread.

    It must never wait for room, which may be what it keeps others from making.
    """
    return is_bus_thread() or _handles.get()


@contextmanager
def hurried() -> Iterator[None]:
    """Have what this thread publishes meanwhile wait for its queue alone, if at all.

    Where the channel of a consumer is full, its overflow decides.
    """
    _bus.is_hurried = True
    try:
        yield
    finally:
        _bus.is_hurried = False


def is_hurried() -> bool:
    """Whether this thread waits for no channel, and for nothing without a timeout."""
    return getattr(_bus, "is_hurried", False)


_get_ident: Final = threading.get_ident


def has_green_threads() -> bool:
    """Whether gevent or eventlet has made greenlets of one thread of all threads."""
    return not isinstance(threading.get_ident, BuiltinFunctionType)


def is_patched_late() -> bool:
    """Whether that came after the bus was imported.

    It holds locks of the other kind then: to wait for one would stop every greenlet.
    """
    return threading.get_ident is not _get_ident


_end = threading.Event()


def start_no_more() -> None:
    """Note that the interpreter ends: the bus starts no thread from now on.

    Python 3.12.0 to 3.12.2 cannot start one then, wherever it is asked to.
    """
    _end.set()


def may_start() -> bool:
    """Whether the bus may start threads for its own ends, here and now."""
    return not (_end.is_set() or is_patched_late())
