"""The delivery: one attempt to hand one message to one consumer; knows no backend."""

from __future__ import annotations

from typing import Any

import msgspec

from .message import Message


class Delivery(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One attempt; as long as it says nothing of one consumer, all may share it."""

    message: Message[Any]
    available_ns: int
    """When it could have been handled first, in nanoseconds since 1970."""
    attempt: int = 1
    """Counts from 1, for each consumer."""
    token: object = None
    """What the backend settles by; opaque to everybody else."""
