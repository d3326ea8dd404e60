"""Messages that consumers gave up on, and the latest of them that a process keeps."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from operator import attrgetter
from threading import Lock
from typing import Any, Final

import msgspec

from .delivery import Delivery
from .errors import describe_error, format_traceback
from .message import Message

KEPT: Final = 1000  # by a process, where the server keeps none

_next_number: Final = itertools.count(1).__next__


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a consumer gave up on."""

    id: str
    """Stable, to replay or discard it; later ones sort behind it."""
    message: Message[Any]
    consumer: str
    attempt: int
    error: str
    """Class and text of the last error, bounded; never the payload."""
    traceback: str = ""
    """Of the last error, bounded."""
    time: float
    """Seconds since 1970."""


def make_dead_letter(
    consumer: str, delivery: Delivery, error: BaseException
) -> DeadLetter:
    """Return what is kept of a delivery that ended with this error; never raises."""
    return DeadLetter(
        id=f"{os.getpid():08x}-{_next_number():012x}",
        message=delivery.message,
        consumer=consumer,
        attempt=delivery.attempt,
        error=describe_error(error),
        traceback=format_traceback(error),
        time=time.time(),
    )


class DeadLetterRing:
    """The latest dead letters of one broker in one process; thread-safe."""

    def __init__(self, size: int = KEPT) -> None:
        self._size = size
        self._lock = Lock()
        self._letters: dict[str, DeadLetter] = {}

    def add(self, letter: DeadLetter) -> None:
        """Keep one more, and forget the oldest where there are too many."""
        with self._lock:
            self._letters[letter.id] = letter
            while len(self._letters) > self._size:
                del self._letters[next(iter(self._letters))]

    def list(self, after: str = "", limit: int | None = None) -> list[DeadLetter]:
        """Return them, oldest first, from the one behind that id."""
        with self._lock:
            found = [letter for letter in self._letters.values() if letter.id > after]
        # One that could not be replayed was put back behind later ones.
        return sorted(found, key=attrgetter("id"))[:limit]

    def take(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        """Remove and return those of these that are still kept."""
        with self._lock:
            found = [self._letters.pop(name, None) for name in ids]
        return [letter for letter in found if letter is not None]
