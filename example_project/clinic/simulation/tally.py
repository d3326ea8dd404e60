"""What the answers said, counted; it knows HTTP statuses and no socket."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from clinic import told


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """One look at a tally."""

    requests: int
    unanswered: int
    records: int
    statuses: Counter[int]
    events: Counter[told.TypeAndState]

    def as_json(self) -> dict[str, object]:
        """Return the counts as plain JSON data."""
        return {
            "requests": self.requests,
            "unanswered": self.unanswered,
            "records": self.records,
            "statuses": {str(k): n for k, n in sorted(self.statuses.items())},
            "events": {f"{k}={state}": n for (k, state), n in self.events.items()},
        }


class Tally:
    """Counts of all the visitors; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._unanswered = self._records = 0
        self._statuses: Counter[int] = Counter()
        self._events: Counter[told.TypeAndState] = Counter()

    def asked(self) -> None:
        """Count a request, before it leaves."""
        with self._lock:
            self._requests += 1

    def unanswered(self) -> None:
        """Count a request whose outcome nobody knows."""
        with self._lock:
            self._unanswered += 1

    def answered(self, status: int, header: str) -> None:
        """Count an answer and what it told about events."""
        events = told.read(header)
        with self._lock:
            self._statuses[status] += 1
            self._events.update(events)

    def saved(self, records: int) -> None:
        """Count records that an answer said were saved."""
        with self._lock:
            self._records += records

    def counts(self) -> Counts:
        """Look at all the counts at one moment."""
        with self._lock:
            return Counts(
                requests=self._requests,
                unanswered=self._unanswered,
                records=self._records,
                statuses=self._statuses.copy(),
                events=self._events.copy(),
            )
