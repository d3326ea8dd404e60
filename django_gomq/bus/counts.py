"""Exact counts and histograms of a consumer or a broker, and the labels they go by."""

from __future__ import annotations

import functools
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import sub
from threading import Lock, RLock
from typing import Final, ParamSpec, TypeVar

import msgspec

from .delivery import DropReason, Verdict
from .errors import error_class_name
from .process.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

MAX_UNDECLARED_TYPES: Final = 200
OTHER: Final = "_other"


class Labels:
    """Event types by themselves if declared, and the first 200 others; then ``_other``.

    Names may be made from data, and a label value must not be. Thread-safe.
    """

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self._lock = RLock()  # as PublishCounts has, and for its reason
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


MAX_ERROR_TYPES: Final = 20

# 14 are what the budget of series allows. No bound is more than 2.5 times the one
# before, so no quantile of a board is further off than that; 12 is there for 10, from
# which 30 is three times as far.
WAIT_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 12.0, 30.0),
)
HANDLER_BUCKETS: Final = WAIT_BUCKETS
# Each of those in parts of at most 1.36 times the one before, from 0.5 ms to a minute:
# a quantile is off by at most 1.3. The first is for handlers that take microseconds.
FINE_BUCKETS: Final = (
    *(0.0001, 0.00042, 0.00056, 0.00075),
    *(0.001, 0.001357, 0.001842, 0.0025, 0.00315, 0.004, 0.005, 0.0063, 0.008),
    *(0.01, 0.01357, 0.01842, 0.025, 0.0315, 0.04, 0.05, 0.063, 0.08),
    *(0.1, 0.1357, 0.1842, 0.25, 0.315, 0.4, 0.5, 0.63, 0.8),
    *(1.0, 1.357, 1.842, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0),
    *(10.0, 12.0, 16.3, 22.1, 30.0, 40.0, 53.0, 70.0),
)
"""What a process counts by, besides the bounds that it shows to Prometheus."""
# Few, as there are so many for each operation of each broker.
OPERATION_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)


class Exemplar(msgspec.Struct, frozen=True):
    """One observed value, in seconds, and the trace that it belongs to."""

    value: float
    trace_id: str
    timestamp: float


class HistogramState(msgspec.Struct, frozen=True):
    """What a histogram held at one moment; counts are per bucket, not cumulative."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """One more than bounds: the last is what exceeds them all."""
    sum_seconds: float
    exemplars: Mapping[int, Exemplar]

    def within(self, bounds: tuple[float, ...]) -> HistogramState:
        """Return the same by fewer bounds; each of them is one of ours."""
        ends = _ends(self.bounds, bounds)
        parts = zip((0, *ends), ends, strict=False)
        counts = [sum(self.counts[begin:end]) for begin, end in parts]
        exemplars: dict[int, Exemplar] = {}
        for index, exemplar in self.exemplars.items():
            where = bisect_right(ends, index)
            if (
                where not in exemplars
                or exemplars[where].timestamp < exemplar.timestamp
            ):
                exemplars[where] = exemplar
        return HistogramState(bounds, tuple(counts), self.sum_seconds, exemplars)


@functools.lru_cache(64)
def _ends(fine: tuple[float, ...], bounds: tuple[float, ...]) -> tuple[int, ...]:
    """Return, for each bound, how many buckets end at it or below; all at the end."""
    return (*(bisect_right(fine, bound) for bound in bounds), len(fine) + 1)


@functools.lru_cache(64)
def with_fine(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Return these bounds and the fine ones."""
    return tuple(sorted({*FINE_BUCKETS, *bounds}))


class Histogram:
    """True counts of durations by bucket. Not thread-safe: its owner holds a lock."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, seconds: float) -> None:
        """Count one duration; one below 0 counts as 0."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += max(0.0, seconds)

    def observe_between(self, times: list[float]) -> None:
        """Count the durations from each of these moments to the next; at least one."""
        spent = times[-1] - times[0]
        if (
            spent <= self._bounds[0]
        ):  # then each of them is, and none has to be looked at
            self._counts[0] += len(times) - 1
            self._sum += spent
        else:
            self.observe_all(list(map(sub, times[1:], times)))

    def observe_all(self, seconds: list[float]) -> None:
        """Count these durations; sorts the list in place. One below 0 counts as 0."""
        if not seconds:
            return
        least, most = min(seconds), max(seconds)
        index = bisect_left(self._bounds, most)
        if not index or least > self._bounds[index - 1]:
            self._counts[index] += len(seconds)  # one bucket: nothing to sort
        else:
            self._sort_in(seconds)
        self._sum += sum(seconds) if least >= 0 else _sum(seconds)

    def _sort_in(self, seconds: list[float]) -> None:
        """Count by one search for each bucket in use, however many the values are."""
        seconds.sort()
        below, last = 0, len(seconds)
        while below < last:
            index = bisect_left(self._bounds, seconds[below])
            if index == len(self._bounds):
                self._counts[-1] += last - below
                return
            # A bucket counts what is at most its bound.
            up_to = bisect_right(seconds, self._bounds[index], below)
            self._counts[index] += up_to - below
            below = up_to

    def keep_exemplar(self, seconds: float, trace_id: str) -> None:
        """Remember the trace of this value as its bucket's latest."""
        index = bisect_left(self._bounds, seconds)
        self._exemplars[index] = Exemplar(seconds, trace_id, time.time())

    def state(self) -> HistogramState:
        """Return a copy of what it holds."""
        return HistogramState(
            self._bounds, tuple(self._counts), self._sum, dict(self._exemplars)
        )


def _sum(seconds: Iterable[float]) -> float:
    # A clock that was set back between two processes makes a wait negative.
    return sum(max(0.0, value) for value in seconds)


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
        self.wait = Histogram(with_fine(tuple(wait_buckets)))
        self.duration = Histogram(with_fine(tuple(handler_buckets)))

    def _label(self, event_type: str) -> str:
        return event_type if self._labels is None else self._labels.of(event_type)

    def count_dispatched(self, event_type: str, count: int) -> None:
        """Count messages of one event type that were meant for this consumer."""
        with self.lock:
            self.dispatched[self._label(event_type)] += count

    def count_dropped(self, event_types: Iterable[str], reason: DropReason) -> None:
        """Count one drop for each event type given."""
        with self.lock:
            self.dropped.update((self._label(name), reason) for name in event_types)

    def add_drop(self, event_type: str, reason: DropReason) -> None:
        """Count one drop. The caller holds the lock."""
        self.dropped[self._label(event_type), reason] += 1

    def count_successes(self, event_type: str, count: int) -> None:
        """Count successes of one event type. The caller holds the lock."""
        self.processed[self._label(event_type), Verdict.SUCCESS] += count
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
        name = error_class_name(error)
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


class OperationTimes:
    """How long a server took for what it was asked, by operation; thread-safe.

    What failed counts, too: for so long somebody waited.
    """

    def __init__(self, *operations: str) -> None:
        self._lock = Lock()
        self._by_operation = {name: Histogram(OPERATION_BUCKETS) for name in operations}

    def run(
        self,
        operation: str,
        call: Callable[P, T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Return what a call returns, or raise so, and note how long it took."""
        began = Clock.monotonic()
        try:
            return call(*arguments, **options)
        finally:
            took = Clock.monotonic() - began
            with self._lock:
                self._by_operation[operation].observe(took)

    def state(self) -> Mapping[str, HistogramState]:
        """Return a copy of what was noted, by operation."""
        with self._lock:
            return {
                name: operation.state()
                for name, operation in self._by_operation.items()
            }


class PublishCounts:
    """What became of publishing at one broker in this process; thread-safe."""

    def __init__(self, labels: Labels) -> None:
        # A buffer's __del__ may count a rollback in the midst of another count.
        self._lock = RLock()
        self._labels = labels
        self._refused: Counter[tuple[str, str]] = Counter()
        self._unconsumed: Counter[str] = Counter()
        self._rolled_back: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()

    def count_refused(self, event: str, reason: str, count: int = 1) -> None:
        """Count messages that were refused; 0 has the reason shown from now on."""
        with self._lock:
            self._refused[self._labels.of(event), reason] += count

    def count_accepted(self, event: str, count: int = 1) -> None:
        """Count messages that a server took."""
        with self._lock:
            self._accepted[self._labels.of(event)] += count

    def count_unknown(self, event: str) -> None:
        """Count one message that a server may have taken, or not."""
        with self._lock:
            self._unknown[self._labels.of(event)] += 1

    def count_unconsumed(self, event: str) -> None:
        """Count one message that no consumer subscribes to."""
        with self._lock:
            self._unconsumed[self._labels.of(event)] += 1

    def count_rolled_back(self, event: str, count: int) -> None:
        """Count messages that a rollback took back before they were published."""
        with self._lock:
            self._rolled_back[self._labels.of(event)] += count

    def state(self) -> dict[str, PublishNumbers]:
        """Return the numbers of every label."""
        with self._lock:
            refused: dict[str, dict[str, int]] = {
                name: {} for name in self._labels.all()
            }
            for (event, reason), count in self._refused.items():
                refused.setdefault(event, {})[reason] = count
            for name in (
                *self._unconsumed,
                *self._rolled_back,
                *self._unknown,
                *self._accepted,
            ):
                refused.setdefault(name, {})
            return {
                name: PublishNumbers(
                    reasons,
                    self._unconsumed[name],
                    self._rolled_back[name],
                    self._unknown[name],
                    self._accepted[name],
                )
                for name, reasons in refused.items()
            }


class PublishNumbers(msgspec.Struct, frozen=True):
    """What became of publishing one event type, as far as no queue knows it."""

    refused: Mapping[str, int]
    """By reason."""
    unconsumed: int
    rolled_back: int
    unknown: int = 0
    accepted: int = 0
    """By a server; memory's queues know their own."""
