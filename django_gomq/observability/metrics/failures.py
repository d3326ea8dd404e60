"""Counts what the metrics themselves failed at, and logs the first; knows no metric."""

from __future__ import annotations

import logging
from collections import Counter

logger = logging.getLogger("gomq.metrics")


class Failures:
    """By kind, of this process. Thread-safe up to a count lost; never blocks."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._told: set[str] = set()

    def expect(self, kind: str) -> None:
        """Have this kind counted from 0, so that an alert sees its first failure."""
        self.counts[kind] += 0

    def note(self, kind: str, text: str) -> None:
        """Count the exception that is being handled; log the first with this text."""
        self.counts[kind] += 1
        if text not in self._told:
            self._told.add(text)
            logger.exception("%s; further errors are only counted", text)  # noqa: LOG004 - every caller handles one

    def forget(self) -> None:
        """Start from 0 again, as in a forked child."""
        self.counts = Counter(dict.fromkeys(self.counts, 0))
        self._told = set()
