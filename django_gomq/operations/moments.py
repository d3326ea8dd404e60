"""What a process holds at one moment, and what it counted between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from django_gomq.bus.broker import Broker
from django_gomq.bus.counts import FINE_BUCKETS, HistogramState
from django_gomq.bus.delivery import Verdict
from django_gomq.bus.stats import ConsumerStats, QueueStats

TICK_SECONDS: Final = 2.0
Key = tuple[str, str]
"""Broker, and consumer or event."""
Buckets = Mapping[int, int]
"""Counts by index into FINE_BUCKETS, and one more for what exceeds them; no zeros."""


class ConsumerHolds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one consumer holds now, in one process or in all."""

    depth: int = 0
    scheduled: int = 0
    in_flight: int = 0
    spilled: int = 0
    capacity: int = 0
    oldest_age: float = 0.0
    running_seconds: float = 0.0
    paused: int = 0
    """In how many processes it is paused."""
    processes: int = 1
    """How many processes run it."""

    @property
    def taken(self) -> int:
        """How many places of its channels are taken."""
        return self.depth + self.scheduled + self.in_flight

    def plus(self, other: ConsumerHolds) -> ConsumerHolds:
        """Return what both hold."""
        return ConsumerHolds(
            depth=self.depth + other.depth,
            scheduled=self.scheduled + other.scheduled,
            in_flight=self.in_flight + other.in_flight,
            spilled=self.spilled + other.spilled,
            capacity=self.capacity + other.capacity,
            oldest_age=max(self.oldest_age, other.oldest_age),
            running_seconds=max(self.running_seconds, other.running_seconds),
            paused=self.paused + other.paused,
            processes=self.processes + other.processes,
        )


class ConsumerCounted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one consumer counted: from a start, or in a tick."""

    dispatched: int = 0
    handled: int = 0
    """Attempts that succeeded."""
    failed: int = 0
    """Attempts that did not, those that are tried again included."""
    retried: int = 0
    dead_lettered: int = 0
    dropped: Mapping[str, int] = {}
    """By reason; no zeros."""
    wait: Buckets = {}
    duration: Buckets = {}

    def plus(self, other: ConsumerCounted) -> ConsumerCounted:
        """Return what both counted."""
        return self._with(other, 1)

    def since(self, earlier: ConsumerCounted) -> ConsumerCounted:
        """Return what was counted after an earlier moment."""
        return self._with(earlier, -1)

    def _with(self, other: ConsumerCounted, sign: int) -> ConsumerCounted:
        return ConsumerCounted(
            dispatched=_added(self.dispatched, other.dispatched, sign),
            handled=_added(self.handled, other.handled, sign),
            failed=_added(self.failed, other.failed, sign),
            retried=_added(self.retried, other.retried, sign),
            dead_lettered=_added(self.dead_lettered, other.dead_lettered, sign),
            dropped=_joined(self.dropped, other.dropped, sign),
            wait=_joined(self.wait, other.wait, sign),
            duration=_joined(self.duration, other.duration, sign),
        )


class EventHolds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What waits of one event type now, in one process or in all."""

    depth: int = 0
    delayed: int = 0
    capacity: int = 0
    """0 where no queue is."""

    def plus(self, other: EventHolds) -> EventHolds:
        """Return what both hold."""
        return EventHolds(
            depth=self.depth + other.depth,
            delayed=self.delayed + other.delayed,
            capacity=self.capacity + other.capacity,
        )


class EventCounted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was counted of one event type: from a start, or in a tick."""

    published: int = 0
    unconsumed: int = 0
    rolled_back: int = 0
    refused: Mapping[str, int] = {}
    """By reason; no zeros."""

    def plus(self, other: EventCounted) -> EventCounted:
        """Return what both counted."""
        return self._with(other, 1)

    def since(self, earlier: EventCounted) -> EventCounted:
        """Return what was counted after an earlier moment."""
        return self._with(earlier, -1)

    def _with(self, other: EventCounted, sign: int) -> EventCounted:
        return EventCounted(
            published=_added(self.published, other.published, sign),
            unconsumed=_added(self.unconsumed, other.unconsumed, sign),
            rolled_back=_added(self.rolled_back, other.rolled_back, sign),
            refused=_joined(self.refused, other.refused, sign),
        )


def _added(count: int, other: int, sign: int) -> int:
    # A count that went back is of processes that are gone.
    return max(0, count + sign * other)


K = TypeVar("K")


def _joined(counts: Mapping[K, int], other: Mapping[K, int], sign: int) -> dict[K, int]:
    if not other:
        return dict(counts)
    joined = {
        key: _added(counts.get(key, 0), other.get(key, 0), sign)
        for key in {**counts, **other}
    }
    return {key: count for key, count in joined.items() if count}


class Holds(msgspec.Struct, frozen=True, kw_only=True):
    """What one process holds now, by broker and name."""

    threads: int = 0
    threads_busy: int = 0
    consumers: Mapping[str, Mapping[str, ConsumerHolds]] = {}
    events: Mapping[str, Mapping[str, EventHolds]] = {}


class Counted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one process counted, by broker and name."""

    consumers: Mapping[str, Mapping[str, ConsumerCounted]] = {}
    events: Mapping[str, Mapping[str, EventCounted]] = {}

    def since(self, earlier: Counted) -> Counted:
        """Return what was counted after an earlier moment; what counted nothing, not.

        What is new since then has counted all it has.
        """
        return Counted(
            consumers=_since(self.consumers, earlier.consumers, ConsumerCounted()),
            events=_since(self.events, earlier.events, EventCounted()),
        )


C = TypeVar("C", ConsumerCounted, EventCounted)


def _since(
    later: Mapping[str, Mapping[str, C]],
    earlier: Mapping[str, Mapping[str, C]],
    nothing: C,
) -> dict[str, dict[str, C]]:
    found: dict[str, dict[str, C]] = {}
    for broker, by_name in later.items():
        before = earlier.get(broker, {})
        new = {
            name: row.since(before.get(name, nothing)) for name, row in by_name.items()
        }
        found[broker] = {name: row for name, row in new.items() if row != nothing}
    return {broker: by_name for broker, by_name in found.items() if by_name}


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What one process counted in some seconds."""

    slot: int
    """Of the process, in the table of them; another one may have had it before."""
    ended: float
    """In seconds since 1970."""
    seconds: float
    counted: Counted


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What one process holds, and has counted since its start."""

    holds: Holds
    counted: Counted


def take_moment(
    brokers: Iterable[Broker], *, threads: int = 0, threads_busy: int = 0
) -> Moment:
    """Return what this process holds and has counted, of brokers that are used here."""
    consumers_hold: dict[str, dict[str, ConsumerHolds]] = {}
    events_hold: dict[str, dict[str, EventHolds]] = {}
    consumers: dict[str, dict[str, ConsumerCounted]] = {}
    events: dict[str, dict[str, EventCounted]] = {}
    for broker in brokers:
        if not broker.is_used:
            continue
        alias, stats = broker.alias, broker.stats()
        queues = {name: row for name, row in stats.queues.items() if _is_used(row)}
        events_hold[alias] = {name: _event_holds(row) for name, row in queues.items()}
        events[alias] = {name: _event_counted(row) for name, row in queues.items()}
        if stats.started or not stats.is_quiet or _is_to_start(broker):
            consumers_hold[alias] = {
                name: _consumer_holds(row) for name, row in stats.consumers.items()
            }
        consumers[alias] = {
            name: _consumer_counted(row) for name, row in stats.consumers.items()
        }
    return Moment(
        holds=Holds(
            threads=threads,
            threads_busy=threads_busy,
            consumers=consumers_hold,
            events=events_hold,
        ),
        counted=Counted(consumers=consumers, events=events),
    )


def _is_to_start(broker: Broker) -> bool:
    """Whether it starts by the first emit, at the latest."""
    return not (broker.capabilities.durable or broker.is_closed)


def _is_used(row: QueueStats) -> bool:
    counts = (row.published, row.depth, row.delayed, row.unconsumed, row.rolled_back)
    return any(counts) or any(row.refused.values())


def _event_holds(row: QueueStats) -> EventHolds:
    return EventHolds(depth=row.depth, delayed=row.delayed, capacity=row.capacity)


def _event_counted(row: QueueStats) -> EventCounted:
    return EventCounted(
        published=row.published,
        unconsumed=row.unconsumed,
        rolled_back=row.rolled_back,
        refused=_without_zeros(row.refused),
    )


def _consumer_holds(row: ConsumerStats) -> ConsumerHolds:
    return ConsumerHolds(
        depth=row.depth,
        scheduled=row.scheduled,
        in_flight=row.in_flight,
        spilled=row.spilled,
        capacity=row.capacity,
        oldest_age=round(row.oldest_age, 3),
        running_seconds=round(row.running_seconds, 3),
        paused=int(row.paused),
    )


def _consumer_counted(row: ConsumerStats) -> ConsumerCounted:
    dropped: dict[str, int] = {}
    for (_, reason), count in row.dropped.items():
        dropped[reason.value] = dropped.get(reason.value, 0) + count
    failed = sum(
        count
        for (_, verdict), count in row.processed.items()
        if verdict is not Verdict.SUCCESS
    )
    return ConsumerCounted(
        dispatched=sum(row.dispatched.values()),
        handled=row.succeeded,
        failed=failed,
        retried=row.retries,
        dead_lettered=row.dead_lettered,
        dropped=_without_zeros(dropped),
        wait=_buckets(row.wait),
        duration=_buckets(row.duration),
    )


def _buckets(state: HistogramState) -> Buckets:
    counts = state.within(FINE_BUCKETS).counts
    return {index: count for index, count in enumerate(counts) if count}


def _without_zeros(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(key): count for key, count in counts.items() if count}
