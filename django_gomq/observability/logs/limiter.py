"""How often a line may be logged: at once, then every few seconds with a count."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

import msgspec

from django_gomq.bus.labels import OTHER

MAX_SUBJECTS: Final = 1000  # event types and error classes may be made from data


class Subject(NamedTuple):
    """What a line is about; lines about one subject are limited together."""

    kind: str
    broker: str
    event: str = ""
    consumer: str = ""
    reason: str = ""


class _Silence(msgspec.Struct, eq=False):
    since: float
    pending: int = 0


class Limiter:
    """Answers whether to speak, and for how many. Thread-safe, never blocks long."""

    def __init__(
        self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._silences: dict[Subject, _Silence] = {}

    def admit(self, subject: Subject, count: int = 1) -> int:
        """Count; return for how many a line stands now, or 0 if it is too soon."""
        with self._lock:
            now = self._clock()
            silence = self._silences.get(subject)
            if silence is None and len(self._silences) >= MAX_SUBJECTS:
                subject = subject._replace(event=OTHER, reason=OTHER)
                silence = self._silences.get(subject)
            if silence is None:
                self._silences[subject] = _Silence(now)
                return count
            silence.pending += count
            if now - silence.since < self._seconds:
                return 0
            total, silence.pending, silence.since = silence.pending, 0, now
            return total

    def take_pending(self, broker: str) -> dict[Subject, int]:
        """Return what was counted about this broker (or none) and not yet told."""
        with self._lock:
            pending = {
                subject: silence.pending
                for subject, silence in self._silences.items()
                if silence.pending and subject.broker in (broker, "")
            }
            for subject in pending:
                self._silences[subject].pending = 0
            return pending
