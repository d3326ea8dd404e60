"""Which threads belong to the bus; it knows nothing else of them."""

from __future__ import annotations

import threading

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
