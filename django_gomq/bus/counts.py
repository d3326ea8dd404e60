"""Exact counts and histograms of a consumer or a broker; they know no client library.

Handler threads fold a slice of about a millisecond of work at a time, so the lock
is taken once for many messages (18 ns a message where Prometheus objects cost 231).
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Final

from .labels import OTHER, Labels
from .outcome import DropReason, Verdict

NS: Final = 1_000_000_000
WAIT_BUCKETS: Final = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0)
HANDLER_BUCKETS: Final = (0.0001, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0)
MAX_ERROR_TYPES: Final = 20


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observed value, in seconds, and the trace that it belongs to."""

    value: float
    trace_id: str
    timestamp: float


@dataclass(frozen=True, slots=True)
class HistogramState:
    """What a histogram held at one moment; counts are per bucket, not cumulative."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """One more than bounds: the last is what exceeds them all."""
    sum_seconds: float
    exemplars: Mapping[int, Exemplar]


class Histogram:
    """True counts of durations by bucket. Not thread-safe: its owner holds a lock."""

    __slots__ = ("_bounds", "_bounds_ns", "_counts", "_exemplars", "_sum_ns")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        # A bucket counts what is at most its bound; bisect_right asks for the next
        # greater whole nanosecond.
        self._bounds_ns = [int(bound * NS) for bound in bounds]
        self._counts = [0] * (len(bounds) + 1)
        self._sum_ns = 0
        self._exemplars: dict[int, Exemplar] = {}

    def observe_all(self, values_ns: list[int]) -> None:
        """Count these durations, in nanoseconds; sorts the list in place.

        One search per bound, not per value: 256 values cost as much as 7.
        """
        values_ns.sort()
        below = 0
        for index, bound in enumerate(self._bounds_ns):
            up_to = bisect_right(values_ns, bound, below)
            self._counts[index] += up_to - below
            below = up_to
            if below == len(values_ns):
                break
        self._counts[-1] += len(values_ns) - below
        self._sum_ns += sum(values_ns)

    def keep_exemplar(self, value_ns: int, trace_id: str) -> None:
        """Remember the trace of this value as its bucket's latest."""
        index = sum(value_ns > bound for bound in self._bounds_ns)
        self._exemplars[index] = Exemplar(value_ns / NS, trace_id, time.time())

    def state(self) -> HistogramState:
        """Return a copy of what it holds."""
        return HistogramState(
            self._bounds,
            tuple(self._counts),
            self._sum_ns / NS,
            dict(self._exemplars),
        )


class ConsumerCounts:
    """What became of one consumer's messages in this process; thread-safe."""

    def __init__(
        self,
        wait_buckets: Sequence[float] = WAIT_BUCKETS,
        handler_buckets: Sequence[float] = HANDLER_BUCKETS,
        labels: Labels | None = None,
    ) -> None:
        """Without ``labels`` every event type counts under its own name."""
        self.lock = Lock()
        self._labels = labels
        self.dispatched: Counter[str] = Counter()
        self.processed: Counter[tuple[str, Verdict]] = Counter()
        self.dropped: Counter[tuple[str, DropReason]] = Counter()
        self.lost_leases: Counter[str] = Counter()
        self.handed_back = 0
        self.retries = 0
        self.dead_lettered = 0
        self.exceptions: Counter[str] = Counter()
        self.last_success: float | None = None
        self.wait = Histogram(wait_buckets)
        self.duration = Histogram(handler_buckets)

    def _label(self, event_type: str) -> str:
        return event_type if self._labels is None else self._labels.of(event_type)

    def count_dispatched(self, tally: Mapping[str, int]) -> None:
        """Count messages by event type that were meant for this consumer."""
        with self.lock:
            if self._labels is None:
                self.dispatched.update(tally)
                return
            for event_type, count in tally.items():
                self.dispatched[self._labels.of(event_type)] += count

    def count_dropped(self, event_types: Iterable[str], reason: DropReason) -> None:
        """Count one drop for each event type given."""
        with self.lock:
            self.dropped.update((self._label(name), reason) for name in event_types)

    def add_drop(self, event_type: str, reason: DropReason) -> None:
        """Count one drop. The caller holds the lock."""
        self.dropped[self._label(event_type), reason] += 1

    def count_successes(self, event_types: Iterable[str]) -> None:
        """Count one success for each event type given. The caller holds the lock."""
        if self._labels is not None:
            event_types = map(self._labels.of, event_types)
        self.processed.update((name, Verdict.SUCCESS) for name in event_types)
        self.last_success = time.time()

    def count_lost_leases(self, event_types: Sequence[str]) -> None:
        """Count outcomes that came too late to count. The caller holds the lock."""
        self.lost_leases.update(map(self._label, event_types))
        self.handed_back += len(event_types)

    def count_handed_back(self, count: int) -> None:
        """Count deliveries that went back to the server, or were taken away by it."""
        with self.lock:
            self.handed_back += count

    def count_failure(
        self, event_type: str, verdict: Verdict, error: BaseException
    ) -> None:
        """Count an attempt that failed. The caller holds the lock."""
        self.processed[self._label(event_type), verdict] += 1
        name = type(error).__name__
        if name not in self.exceptions and len(self.exceptions) >= MAX_ERROR_TYPES:
            name = OTHER
        self.exceptions[name] += 1

    @property
    def succeeded(self) -> int:
        """All successes, of all event types."""
        return sum(
            count
            for (_, verdict), count in self.processed.items()
            if verdict is Verdict.SUCCESS
        )


class RefusalCounts:
    """What one broker did not take in this process; thread-safe."""

    def __init__(self, labels: Labels) -> None:
        # A buffer's __del__ may count a rollback in the midst of another count.
        self._lock = RLock()
        self._labels = labels
        self._refused: Counter[tuple[str, str]] = Counter()
        self._unconsumed: Counter[str] = Counter()
        self._rolled_back: Counter[str] = Counter()

    def count_refused(self, event: str, reason: str) -> None:
        """Count one message that was refused."""
        with self._lock:
            self._refused[self._labels.of(event), reason] += 1

    def count_unconsumed(self, event: str) -> None:
        """Count one message that no consumer subscribes to."""
        with self._lock:
            self._unconsumed[self._labels.of(event)] += 1

    def count_rolled_back(self, event: str) -> None:
        """Count one message that a rollback took back before it was published."""
        with self._lock:
            self._rolled_back[self._labels.of(event)] += 1

    def state(self) -> dict[str, Refusals]:
        """Return the numbers of every label."""
        with self._lock:
            refused: dict[str, dict[str, int]] = {
                name: {} for name in self._labels.all()
            }
            for (event, reason), count in self._refused.items():
                refused.setdefault(event, {})[reason] = count
            for name in (*self._unconsumed, *self._rolled_back):
                refused.setdefault(name, {})
            return {
                name: Refusals(reasons, self._unconsumed[name], self._rolled_back[name])
                for name, reasons in refused.items()
            }


@dataclass(frozen=True, slots=True)
class Refusals:
    """What was not taken of one event type."""

    refused: Mapping[str, int]
    """By reason."""
    unconsumed: int
    rolled_back: int
