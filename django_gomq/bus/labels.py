"""Names on their way to become label values, of which there must not be too many."""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock
from typing import Final

MAX_UNDECLARED_TYPES: Final = 200
OTHER: Final = "_other"


class Labels:
    """Event types by themselves if declared, and the first 200 others; then ``_other``.

    Names may be made from data, and a label value must not be. Thread-safe.
    """

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self._lock = RLock()  # as RefusalCounts has, and for its reason
        self._known = set(declared)
        self._room = MAX_UNDECLARED_TYPES

    def of(self, event_type: str) -> str:
        """Return the label of an event type."""
        if event_type in self._known:
            return event_type
        with self._lock:
            if event_type not in self._known:
                if not self._room:
                    return OTHER
                self._room -= 1
                self._known.add(event_type)
        return event_type

    def all(self) -> list[str]:
        """Return every label given so far, and those that were declared."""
        with self._lock:
            return sorted(self._known)
