"""What was counted in the last five minutes: each tick is added once, and goes once."""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from django_gomq.bus.counts import FINE_BUCKETS
from django_gomq.operations.moments import (
    Buckets,
    ConsumerCounted,
    EventCounted,
    Key,
    Tick,
)

from .reading import BAR_SECONDS, BARS, SPAN_SECONDS

RATE_BARS: Final = 2
RECENT_BARS: Final = 12
LATE_SECONDS: Final = 20.0
"""A process tells its numbers within this time, also while nobody looks."""


Part = tuple[int, float, float]
"""A bar, and from which part of a tick to which it has it, from 0 to 1."""


class Bars:
    """Numbers of one row by bar, which are counted from 1970 on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_number: dict[int, list[int]] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._by_number)

    def add(self, parts: Sequence[Part], row: Sequence[int]) -> None:
        """Spread a row over bars, each from a part of the tick to another."""
        for number, begin, end in parts:
            bar = self._by_number.setdefault(number, [0] * self._size)
            for index, count in enumerate(row):
                if count:
                    bar[index] += round(count * end) - round(count * begin)

    def forget(self, before: int) -> None:
        """Forget the bars before that one."""
        for number in [number for number in self._by_number if number < before]:
            del self._by_number[number]

    def last(self, count: int, until: int) -> list[list[int] | None]:
        """Return so many bars, the oldest first, the last of them ``until``."""
        return [self._by_number.get(until - back) for back in range(count - 1, -1, -1)]

    def sum(self, count: int, until: int) -> list[int]:
        """Return the sum of so many bars."""
        found = [bar for bar in self.last(count, until) if bar is not None]
        columns = zip(*found, strict=True)
        return list(map(sum, columns)) if found else [0] * self._size


C = TypeVar("C", ConsumerCounted, EventCounted)


class Totals(ABC, Generic[C]):
    """What one row counted in the window."""

    bars: Bars

    @abstractmethod
    def row(self, counted: C) -> list[int]:
        """Return the numbers that a bar has of this, in the order of its columns."""

    @abstractmethod
    def change(self, counted: C, sign: int) -> None:
        """Add what a tick counted, or take it away."""


class ConsumerTotals(Totals[ConsumerCounted]):
    """What one consumer counted in the window."""

    HANDLED, FAILED, DROPPED, DISPATCHED, DEAD = range(5)
    """The columns of a bar."""

    def __init__(self) -> None:
        self.retried = self.dead_lettered = self.handled = self.failed = 0
        self.dropped: Counter[str] = Counter()
        self.wait = [0] * (len(FINE_BUCKETS) + 1)
        self.duration = [0] * (len(FINE_BUCKETS) + 1)
        self.bars = Bars(5)

    def row(self, counted: ConsumerCounted) -> list[int]:
        """Return its columns."""
        dropped = sum(counted.dropped.values())
        return [
            *(counted.handled, counted.failed, dropped),
            *(counted.dispatched, counted.dead_lettered),
        ]

    def change(self, counted: ConsumerCounted, sign: int) -> None:
        """Add it, or take it away."""
        self.handled += sign * counted.handled
        self.failed += sign * counted.failed
        self.retried += sign * counted.retried
        self.dead_lettered += sign * counted.dead_lettered
        _change(self.dropped, counted.dropped, sign)
        for counts, buckets in (
            (self.wait, counted.wait),
            (self.duration, counted.duration),
        ):
            _change_buckets(counts, buckets, sign)


class EventTotals(Totals[EventCounted]):
    """What was counted of one event type in the window."""

    def __init__(self) -> None:
        self.published = self.unconsumed = self.rolled_back = 0
        self.refused: Counter[str] = Counter()
        self.bars = Bars(1)

    def row(self, counted: EventCounted) -> list[int]:
        """Return its columns."""
        return [counted.published]

    def change(self, counted: EventCounted, sign: int) -> None:
        """Add it, or take it away."""
        self.published += sign * counted.published
        self.unconsumed += sign * counted.unconsumed
        self.rolled_back += sign * counted.rolled_back
        _change(self.refused, counted.refused, sign)


def _change(counts: Counter[str], by: Mapping[str, int], sign: int) -> None:
    for key, count in by.items():
        counts[key] += sign * count
        if not counts[key]:
            del counts[key]


def _change_buckets(counts: list[int], by: Buckets, sign: int) -> None:
    for index, count in by.items():
        if index < len(counts):  # a process of another version may have more
            counts[index] += sign * count


T = TypeVar("T", bound=Totals[Any])


class Group(Generic[T, C]):
    """The totals of all rows of one kind, by broker and name."""

    def __init__(self, make: Callable[[], T]) -> None:
        self.by_key: dict[Key, T] = {}
        self._make = make

    def add(self, rows: Mapping[str, Mapping[str, C]], parts: Sequence[Part]) -> None:
        """Add what a tick counted."""
        for key, counted in _flat(rows):
            if key not in self.by_key:
                self.by_key[key] = self._make()
            totals = self.by_key[key]
            totals.change(counted, 1)
            totals.bars.add(parts, totals.row(counted))

    def take_away(self, rows: Mapping[str, Mapping[str, C]]) -> None:
        """Take away what an old tick counted."""
        for key, counted in _flat(rows):
            if key in self.by_key:
                self.by_key[key].change(counted, -1)

    def forget(self, before: int) -> None:
        """Forget bars, and the rows that have none any more."""
        for key, totals in list(self.by_key.items()):
            totals.bars.forget(before)
            if not totals.bars:
                del self.by_key[key]


class Window:
    """The totals of all consumers and events. For one thread at a time."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, int, Tick]] = []
        """A heap: the oldest first, whenever they were told."""
        self._order = itertools.count()
        self.consumers = Group[ConsumerTotals, ConsumerCounted](ConsumerTotals)
        self.events = Group[EventTotals, EventCounted](EventTotals)
        self.until = 0
        """The latest bar that is whole, as far as ticks tell."""

    def add(self, tick: Tick) -> None:
        """Count what a process counted."""
        parts = list(_parts(tick))
        self.consumers.add(tick.counted.consumers, parts)
        self.events.add(tick.counted.events, parts)
        heapq.heappush(self._ticks, (tick.ended, next(self._order), tick))
        self.until = max(self.until, int(tick.ended // BAR_SECONDS) - 1)

    @property
    def ticks(self) -> Sequence[Tick]:
        """What it has counted, in no order."""
        return [tick for _, _, tick in self._ticks]

    def advance(self, now: float) -> None:
        """Forget what is older than the window at that time."""
        while self._ticks and self._ticks[0][0] <= now - SPAN_SECONDS:
            *_, old = heapq.heappop(self._ticks)
            self.consumers.take_away(old.counted.consumers)
            self.events.take_away(old.counted.events)
        # The newest bar is where nothing was told for long, too.
        self.until = max(self.until, int((now - LATE_SECONDS) // BAR_SECONDS))
        for group in (self.consumers, self.events):
            group.forget(self.until - BARS)


def _flat(rows: Mapping[str, Mapping[str, C]]) -> Iterator[tuple[Key, C]]:
    for broker, by_name in rows.items():
        for name, row in by_name.items():
            yield (broker, name), row


def _parts(tick: Tick) -> Iterator[Part]:
    """Yield the bars that a tick reaches into."""
    began = tick.ended - tick.seconds
    for number in range(int(began // BAR_SECONDS), int(tick.ended // BAR_SECONDS) + 1):
        begin = max(began, number * BAR_SECONDS)
        end = min(tick.ended, (number + 1) * BAR_SECONDS)
        if end > begin:
            yield number, (begin - began) / tick.seconds, (end - began) / tick.seconds
