"""The first screen: what is wrong, the totals, and the tables, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from django.utils.safestring import SafeString

from . import amounts, svg
from .mounting import consumer_address
from .reading import (
    BARS,
    EventReading,
    Finding,
    ProcessReading,
    Reading,
    Source,
    State,
)
from .rows import Columns, columns_of, consumer_row, held_before

_NAMED: Final = 3
"""Findings that the verdict tells; the tables have the others."""


def context(reading: Reading, root: str) -> Mapping[str, Any]:
    """Return what the first screen shows; ``root`` is its path."""
    return {
        "scope": scope(reading),
        "verdict": verdict(reading, root),
        "tiles": tiles(reading),
        "consumers": [consumer_row(consumer, root) for consumer in reading.consumers],
        "events": [_event(event) for event in reading.events],
        "processes": [_process(process) for process in reading.processes],
    }


def scope(reading: Reading) -> str:
    """Return whose numbers these are."""
    count = reading.process_count
    if reading.source is Source.PROCESS:
        return "This process only"
    if reading.source is Source.DIRECTORY:
        return f"This server, {amounts.plural(count, 'process', 'es')}"
    return "1 process" if count == 1 else f"All {amounts.count(count)} processes"


# ------------------------------------------------------------ verdict


class VerdictPart(msgspec.Struct, frozen=True):
    """A part of the verdict, which a name may begin that leads somewhere."""

    text: str
    name: str = ""
    address: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether anything is wrong, in a sentence."""

    kind: str
    lead: str
    told: Sequence[VerdictPart]


def verdict(reading: Reading, root: str) -> Verdict:
    """Return what is wrong, the worst first, or that nothing is."""
    findings = reading.findings
    told = [_told(finding, root) for finding in findings[:_NAMED]]
    if len(findings) > _NAMED:
        told.append(VerdictPart(f"and {len(findings) - _NAMED} more"))
    told = _punctuated(told)
    told += [
        VerdictPart("is paused.", consumer.consumer, _address(consumer, root))
        for consumer in reading.consumers
        if consumer.state is State.PAUSED
    ][:_NAMED]
    if not reading.lost:
        told.append(VerdictPart("Nothing was lost in the last five minutes."))
    kind = "bad" if any(finding.is_bad for finding in findings) else "warn"
    return Verdict(
        kind=kind if findings else "ok", lead=_lead(reading), told=tuple(told)
    )


def _lead(reading: Reading) -> str:
    found = {
        (finding.broker, finding.consumer)
        for finding in reading.findings
        if finding.consumer
    }
    if found:
        verb = "needs" if len(found) == 1 else "need"
        return f"{len(found)} of {len(reading.consumers)} consumers {verb} a look."
    return "Events are refused." if reading.findings else "All is well."


def _told(finding: Finding, root: str) -> VerdictPart:
    if finding.consumer:
        return VerdictPart(finding.text, finding.consumer, _address(finding, root))
    return VerdictPart(f"{finding.event}: {finding.text}")


def _address(where: Any, root: str) -> str:
    return consumer_address(root, where.broker, where.consumer)


def _punctuated(told: Sequence[VerdictPart]) -> list[VerdictPart]:
    return [
        msgspec.structs.replace(part, text=f"{part.text}{mark}")
        for part, mark in zip(told, [*";" * (len(told) - 1), "."], strict=False)
    ]


# ------------------------------------------------------------ tiles


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One total."""

    name: str
    value: str
    unit: str
    by: str = ""
    """What the unit goes on with, where there is room."""
    chart: SafeString
    is_bad: bool = False


def tiles(reading: Reading) -> Sequence[Tile]:
    """Return the five totals, each with its last five minutes."""
    found = reading.consumers
    failed = sum(consumer.failed for consumer in found)
    attempts = failed + sum(consumer.handled for consumer in found)
    columns = list(zip(*map(columns_of, found), strict=True)) or [()] * len(
        Columns._fields
    )
    sums = Columns(*map(_sums, columns))
    held = sum(consumer.taken + consumer.spilled for consumer in found)
    busy = sum(consumer.out_rate > 0 for consumer in found)
    return (
        Tile(
            name="Emitted",
            value=amounts.rate(reading.emitted_rate),
            unit="/s",
            chart=_area(
                _sums([event.bars for event in reading.events]), "flow", "Emitted"
            ),
        ),
        Tile(
            name="Handled",
            value=amounts.rate(reading.handled_rate),
            unit="/s",
            by=f"by {amounts.plural(busy, 'consumer')}",
            chart=_area(sums.handled, "ok", "Handled"),
        ),
        Tile(
            name="Failed attempts",
            value=amounts.share(failed, attempts),
            unit="in 5 min",
            chart=_area(sums.failed, "bad", "Failed"),
            is_bad=failed > 0,
        ),
        Tile(
            name="Waiting now",
            value=amounts.count(reading.waiting),
            unit="messages",
            chart=_area(held_before(held, sums), "flow", "Waiting"),
        ),
        Tile(
            name="Lost",
            value=amounts.count(reading.lost),
            unit="in 5 min",
            chart=_area(sums.dropped, "bad", "Dropped"),
            is_bad=reading.lost > 0,
        ),
    )


_FINE: Final = 24
"""Steps of the height of a chart that stands alone."""


def _sums(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return what rows of the same bars come to together."""
    return list(map(sum, zip(*rows, strict=True))) or [0] * BARS


def _area(values: Sequence[int], kind: str, what: str) -> SafeString:
    return svg.area(values, kind, f"{what}, last 5 minutes", _FINE)


# ------------------------------------------------------------ events, processes


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event type, as text and a chart."""

    key: str
    name: str
    rate: str
    chart: SafeString
    depth: str
    refused: str
    """Empty for none."""
    goes_to: str


def _event(found: EventReading) -> EventRow:
    refused = sum(found.refused.values())
    label = f"{found.event}: {found.published} emitted"
    return EventRow(
        key=f"{found.broker}/{found.event}",
        name=found.event,
        rate=amounts.rate(found.rate),
        chart=svg.area(found.bars, "flow", label),
        depth=amounts.count(found.depth),
        refused=amounts.count(refused) if refused else "",
        goes_to=", ".join(found.goes_to) or "nobody listens",
    )


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """One process, as text."""

    key: str
    host: str
    pid: int
    role: str
    threads: str
    up: str
    seen: str


def _process(found: ProcessReading) -> ProcessRow:
    return ProcessRow(
        key=f"{found.host}-{found.pid}",
        host=found.host,
        pid=found.pid,
        role=found.role,
        threads=f"{found.threads_busy} of {found.threads}",
        up=amounts.duration(found.up_seconds),
        seen=f"{amounts.duration(found.seen_seconds)} ago",
    )
