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
