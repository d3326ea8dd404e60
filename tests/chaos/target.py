"""What a run works on: where its events are, and what is asked there in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from django_gomq.bus.errors import DecodeError
from django_gomq.bus.wire import decode_structured


class Target(ABC):
    """A server under load, asked past Django and past the backend."""

    database: Mapping[str, Any]
    """The entry of DATABASES; it has the rows that are written with each event."""
    url: str = ""
    """Of Redis; empty where the database keeps the events."""
    is_ordered: bool = True
    """Whether a key is with one process at a time."""
    deaths: int
    """So many kills that a message was held at make it a dead letter."""

    @abstractmethod
    def committed(self) -> frozenset[str]:
        """Return what has a row."""

    @abstractmethod
    def left(self) -> Mapping[str, int]:
        """Count what a finished run has none of."""

    @abstractmethod
    def unended(self) -> int:
        """Count the processes that nobody has found dead; 0 where nobody looks."""

    @abstractmethod
    def dead_letters(self) -> Mapping[tuple[str, str], str]:
        """Return the errors of dead letters, by consumer and message."""

    def is_writable(self) -> bool:
        """Whether no process that stands still keeps all others from writing."""
        return True

    def crashed(self) -> AbstractContextManager[None] | None:
        """End the server as a crash would, and start it again on leaving.

        None where it cannot be.
        """
        return None


def uid_in(event: bytes) -> str:
    """Return which event this is; its bytes, if it is none."""
    try:
        read = decode_structured(event, max_body_bytes=2**20)
    except DecodeError:
        return repr(event)
    return str(msgspec.json.decode(read.message.body)["uid"])
