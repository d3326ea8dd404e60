"""What a broker is made of, in every process anew; it makes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from .backend import Backend
from .hook import Hook
from .worker import Worker


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker's parts are made of, in every process anew."""

    alias: str
    make_backend: Callable[[], Backend]
    make_hooks: Callable[[], Sequence[Hook]]
    get_worker: Callable[[], Worker] | None
    """Returns the worker to share; without it the broker has one of its own."""
    threads: int
    """Handler threads of a worker of its own."""
    declared: tuple[str, ...]
    """Event types that have numbers before their first message."""
    wait_buckets: tuple[float, ...]
    handler_buckets: tuple[float, ...]
