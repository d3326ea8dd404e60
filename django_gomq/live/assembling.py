"""Puts a reading together from what processes hold and have counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, TypeVar

import msgspec

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.counts import FINE_BUCKETS
from django_gomq.observability.metrics.samples import estimate
from django_gomq.operations.moments import ConsumerHolds, EventHolds, Key
from django_gomq.operations.viewing import Desired

from .reading import (
    BAD,
    BAR_SECONDS,
    BARS,
    DOUBTFUL,
    Bar,
    ConsumerReading,
    EventReading,
    Finding,
    Reading,
    State,
)
from .sources import Facts
from .window import RATE_BARS, RECENT_BARS, ConsumerTotals, EventTotals, Window

RATE_SECONDS: Final = RATE_BARS * BAR_SECONDS
RECENT_SECONDS: Final = RECENT_BARS * BAR_SECONDS
"""What a state is judged by."""
STUCK_SECONDS: Final = 120.0
"""Handlers that take longer than this are rare, and a timeout of theirs tells more."""
FAILING_SHARE: Final = 0.2
FILLING_SHARE: Final = 0.5
LEAST_FILL: Final = 0.1
"""Below that nobody is told when a channel will be full."""
LONGEST_FILL: Final = 1_800.0


class Known(msgspec.Struct, frozen=True):
    """A consumer in the code of the process that answers."""

    broker: str
    consumer: Consumer
    keeps_all: bool
    """Whether the broker keeps what finds no room."""


def assemble(facts: Facts, window: Window, known: Sequence[Known]) -> Reading:
    """Return what these facts come to, with what was counted in the window."""
    consumers = sorted(_consumers(facts, window, known), key=_worst_first)
    events = sorted(
        _events(facts, window, known),
        key=lambda row: (-row.rate, row.broker, row.event),
    )
    refused = sum((Counter(row.refused) for row in events), Counter[str]())
    dropped = sum((Counter(row.dropped) for row in consumers), Counter[str]())
    lost = refused + dropped
    attempts = sum(row.handled + row.failed for row in consumers)
    return Reading(
        source=facts.source,
        at=facts.at,
        processes=tuple(facts.processes),
        process_count=facts.process_count,
        consumers=tuple(consumers),
        events=tuple(events),
        findings=tuple(_findings(consumers, events)),
        emitted_rate=sum(row.rate for row in events),
        handled_rate=sum(row.out_rate for row in consumers),
        failed_share=sum(row.failed for row in consumers) / max(1, attempts),
        waiting=sum(row.depth for row in events)
        + sum(row.depth + row.scheduled + row.spilled for row in consumers),
        lost=lost.total(),
        lost_by_reason=dict(lost),
    )


# ------------------------------------------------------------ consumers


def _consumers(
    facts: Facts,
    window: Window,
    known: Sequence[Known],
) -> Iterator[ConsumerReading]:
    in_code = {(entry.broker, entry.consumer.name): entry for entry in known}
    held = _summed([holds.consumers for holds in facts.holds], ConsumerHolds.plus)
    counted = window.consumers.by_key
    nothing = ConsumerTotals()
    for key in {**in_code, **held, **counted}:
        yield _consumer(
            key,
            in_code.get(key),
            held.get(key, ConsumerHolds(processes=0)),
            counted.get(key, nothing),
            window.until,
            facts.desired.get(key, Desired()),
        )


def _consumer(
    key: Key,
    known: Known | None,
    holds: ConsumerHolds,
    total: ConsumerTotals,
    until: int,
    wanted: Desired,
) -> ConsumerReading:
    recent = _Recent(*total.bars.sum(RECENT_BARS, until))
    latest = _Recent(*total.bars.sum(RATE_BARS, until))
    keeps_all = known is not None and known.keeps_all
    return ConsumerReading(
        broker=key[0],
        consumer=key[1],
        types=known.consumer.types if known is not None else (),
        severity=known.consumer.severity if known is not None else "warning",
        state=_state(holds, bool(total.dropped), recent, wanted),
        processes=holds.processes,
        paused_in=holds.paused,
        desired=wanted,
        depth=holds.depth,
        scheduled=holds.scheduled,
        in_flight=holds.in_flight,
        spilled=holds.spilled,
        capacity=holds.capacity,
        oldest_age=holds.oldest_age,
        running_seconds=holds.running_seconds,
        full_in=None if keeps_all else _full_in(holds, recent),
        bars=tuple(map(_bar, total.bars.last(BARS, until))),
        in_rate=latest.dispatched / RATE_SECONDS,
        out_rate=latest.handled / RATE_SECONDS,
        wait_p95=_p95(total.wait),
        handler_p95=_p95(total.duration),
        handled=total.handled,
        failed=total.failed,
        failed_share=recent.failed_share,
        retried=total.retried,
        dead_lettered=total.dead_lettered,
        dropped=dict(total.dropped),
    )


class _Recent(NamedTuple):
    """Some bars of a consumer together; in the order of its columns."""

    handled: int
    failed: int
    dropped: int
    dispatched: int
    dead_lettered: int

    @property
    def failed_share(self) -> float:
        return self.failed / max(1, self.handled + self.failed)


_EMPTY: Final = Bar()


def _bar(columns: Sequence[int] | None) -> Bar:
    if columns is None:
        return _EMPTY
    handled, failed, dropped, dispatched, dead_lettered = columns
    return Bar(
        handled=handled,
        failed=failed,
        dropped=dropped,
        dispatched=dispatched,
        dead_lettered=dead_lettered,
    )


def _state(
    holds: ConsumerHolds, has_lost: bool, recent: _Recent, wanted: Desired
) -> State:
    is_paused = bool(holds.paused)
    for state, applies in (
        (State.PAUSED_LOSING, is_paused and has_lost),
        (State.LOSING, has_lost),
        (State.STUCK, not is_paused and _is_stuck(holds, recent)),
        (State.FAILING, recent.failed_share > FAILING_SHARE),
        (State.PAUSING, wanted.paused and holds.paused < holds.processes),
        (State.RESUMING, is_paused and wanted.paused is False),
        (State.FILLING, _fill(holds) >= FILLING_SHARE),
        (State.PAUSED, is_paused),
        (State.ABSENT, not holds.processes),
        (State.RUNNING, recent.handled or recent.failed or holds.taken),
    ):
        if applies:
            return state
    return State.IDLE


def _is_stuck(holds: ConsumerHolds, recent: _Recent) -> bool:
    has_ended = recent.handled or recent.failed
    return holds.running_seconds >= STUCK_SECONDS and not has_ended


def _fill(holds: ConsumerHolds) -> float:
    return holds.taken / holds.capacity if holds.capacity else 0.0


def _full_in(holds: ConsumerHolds, recent: _Recent) -> float | None:
    ended = recent.handled + recent.dead_lettered + recent.dropped
    grown = recent.dispatched - ended
    room = holds.capacity - holds.taken
    if grown <= 0 or room <= 0 or _fill(holds) < LEAST_FILL:
        return None
    seconds = room * RECENT_SECONDS / grown
    return seconds if seconds < LONGEST_FILL else None


_BOUNDS: Final = (*FINE_BUCKETS, math.inf)


def _p95(counts: Sequence[int]) -> float | None:
    return estimate(0.95, list(zip(_BOUNDS, accumulate(counts), strict=True)))


_RANKS: Final = {state: rank for rank, state in enumerate(State)}


def _worst_first(row: ConsumerReading) -> tuple[int, int, str, str]:
    return _RANKS[row.state], -row.lost, row.consumer, row.broker


# ------------------------------------------------------------ events


def _events(
    facts: Facts, window: Window, known: Sequence[Known]
) -> Iterator[EventReading]:
    held = _summed([holds.events for holds in facts.holds], EventHolds.plus)
    counted, nothing = window.events.by_key, EventTotals()
    for key in {**held, **counted}:
        broker, event = key
        holds, total = held.get(key, EventHolds()), counted.get(key, nothing)
        (latest,) = total.bars.sum(RATE_BARS, window.until)
        bars = total.bars.last(BARS, window.until)
        yield EventReading(
            broker=broker,
            event=event,
            goes_to=tuple(
                sorted(
                    entry.consumer.name
                    for entry in known
                    if entry.broker == broker and _subscribes(entry.consumer, event)
                )
            ),
            rate=latest / RATE_SECONDS,
            bars=tuple(0 if bar is None else bar[0] for bar in bars),
            published=total.published,
            refused=dict(total.refused),
            unconsumed=total.unconsumed,
            rolled_back=total.rolled_back,
            depth=holds.depth + holds.delayed,
            capacity=holds.capacity,
        )


def _subscribes(consumer: Consumer, event: str) -> bool:
    return not event.startswith("_") and consumer.subscribes_to(event)


# ------------------------------------------------------------ what is wrong


def _findings(
    consumers: Sequence[ConsumerReading], events: Sequence[EventReading]
) -> Iterator[Finding]:
    for row in consumers:
        if row.state in BAD or row.state in DOUBTFUL:
            yield Finding(
                is_bad=row.state in BAD,
                broker=row.broker,
                consumer=row.consumer,
                text=_sentence(row),
            )
    for event in events:
        if event.refused:
            count = sum(event.refused.values())
            yield Finding(
                is_bad=True,
                broker=event.broker,
                consumer="",
                event=event.event,
                text=f"{_messages(count)} refused ({_reasons(event.refused)})",
            )


def _sentence(row: ConsumerReading) -> str:
    if row.state in (State.PAUSED_LOSING, State.LOSING):
        told = f"dropped {_messages(row.lost)} ({_reasons(row.dropped)})"
        return f"is paused and {told}" if row.state is State.PAUSED_LOSING else told
    if row.state is State.STUCK:
        return f"has been at one message for {row.running_seconds:.0f} s"
    if row.state is State.FAILING:
        gave_up = f" and gave up on {row.dead_lettered}" if row.dead_lettered else ""
        return f"fails {row.failed_share:.0%} of its attempts{gave_up}"
    told = f"{row.taken} of {row.capacity} places taken"
    return f"is paused, with {told}" if row.paused_in else f"falls behind: {told}"


def _messages(count: int) -> str:
    return f"{count} message{'s' * (count != 1)}"


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(reason.replace("_", " ") for reason in sorted(counts))


# ------------------------------------------------------------ adding up

H = TypeVar("H", ConsumerHolds, EventHolds)


def _summed(
    parts: Iterable[Mapping[str, Mapping[str, H]]], plus: Callable[[H, H], H]
) -> dict[Key, H]:
    found: dict[Key, H] = {}
    for part in parts:
        for broker, by_name in part.items():
            for name, row in by_name.items():
                key = broker, name
                found[key] = plus(found[key], row) if key in found else row
    return found
