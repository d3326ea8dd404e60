"""The numbers as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from django_gomq.management.tables import Cell, Marked, Screen

from .numbers import (
    ConsumerNumbers,
    EventNumbers,
    Quantiles,
    Rate,
    Rates,
    Snapshot,
    key_of,
)


def as_data(snapshot: Snapshot) -> Mapping[str, Any]:
    """Return all that ``stats`` tells, as JSON has it."""
    numbers, rates = snapshot.numbers, snapshot.rates
    found: dict[str, Any] = {
        "source": snapshot.source,
        "processes": numbers.processes,
        "consumers": [
            _consumer_data(consumer, rates) for consumer in numbers.consumers
        ],
        "events": [_event_data(event, rates) for event in numbers.events],
        "over": list(snapshot.over),
    }
    return found


def _consumer_data(row: ConsumerNumbers, rates: Rates | None) -> Mapping[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(row)
    if rates is not None:
        found["handled_per_second"] = _rate_data(rates.handled, row)
        found["failed_per_second"] = _rate_data(rates.failed, row)
    return found


def _event_data(row: EventNumbers, rates: Rates | None) -> Mapping[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(row)
    if rates is not None:
        found["published_per_second"] = _rate_data(rates.published, row)
    return found


def _rate_data(rate: Rate, row: ConsumerNumbers | EventNumbers) -> float | None:
    found = rate.get(key_of(row))
    return None if found is None else round(found, 3)


_TEXTS: Final = frozenset({"broker", "consumer", "event", "dropped", "not published"})
_MINUTE: Final = 60.0
_TIMES: Final = "Times of consumers (p50/p95, estimated)"


def as_table(snapshot: Snapshot, screen: Screen) -> str:
    """Return the tables as text; with columns of rates where there are some."""
    numbers, rates = snapshot.numbers, snapshot.rates
    count = numbers.processes
    parts = [f"{count} process{'es' * (count != 1)}, from {snapshot.source}"]
    if not numbers.consumers and not numbers.events:
        parts.append("No process has counted anything so far.")
    tables = {
        "Consumers now": _all_now(numbers.consumers),
        "Consumers since the start": [
            _since_start(consumer) for consumer in numbers.consumers
        ],
        _TIMES: [_times(consumer, rates) for consumer in numbers.consumers],
        "Events": [_event(event, rates) for event in numbers.events],
    }
    parts += [_part(screen, title, rows) for title, rows in tables.items()]
    parts.append(
        "\n".join(screen.paint("ERROR", f"over: {line}") for line in snapshot.over)
    )
    return "\n\n".join(filter(None, parts))


def _part(screen: Screen, title: str, rows: Sequence[Mapping[str, Cell]]) -> str:
    if not rows:
        return ""
    headers = list(rows[0])
    if len({str(row["broker"]) for row in rows}) == 1:
        headers.remove("broker")
    cells = [[row[header] for header in headers] for row in rows]
    right = [header for header in headers if header not in _TEXTS]
    return screen.table(title, headers, cells, right=right)


def _all_now(consumers: Sequence[ConsumerNumbers]) -> list[Mapping[str, Cell]]:
    rows = [_now(consumer) for consumer in consumers]
    if not any(consumer.spilled for consumer in consumers):
        return rows
    spilled = [{"spilled": str(consumer.spilled)} for consumer in consumers]
    return [{**row, **more} for row, more in zip(rows, spilled, strict=True)]


def _now(row: ConsumerNumbers) -> Mapping[str, Cell]:
    paused = Marked(f"{row.consumer} (paused)", "WARNING")
    return {
        "broker": row.broker,
        "consumer": paused if row.paused else row.consumer,
        "depth": _depth(row.depth, row.capacity),
        "scheduled": str(row.scheduled),
        "in flight": str(row.in_flight),
        "oldest": _seconds(row.oldest_age_seconds),
    }


def _since_start(row: ConsumerNumbers) -> Mapping[str, Cell]:
    return {
        "broker": row.broker,
        "consumer": row.consumer,
        "handled": str(row.handled),
        "failed": _count(row.failed, "WARNING"),
        "retried": str(row.retried),
        "dead": _count(row.dead_lettered, "ERROR"),
        "dropped": _reasons(row.dropped),
    }


def _times(row: ConsumerNumbers, rates: Rates | None) -> Mapping[str, Cell]:
    found: dict[str, Cell] = {
        "broker": row.broker,
        "consumer": row.consumer,
        "wait": _pair(row.wait_seconds_est),
        "handler": _pair(row.handler_seconds_est),
    }
    if rates is not None:
        found["handled/s"] = _rate(rates.handled, row)
        found["failed/s"] = _rate(rates.failed, row)
    return found


def _event(row: EventNumbers, rates: Rates | None) -> Mapping[str, Cell]:
    found: dict[str, Cell] = {
        "broker": row.broker,
        "event": row.event,
        "published": str(row.published),
        "depth": _depth(row.depth, row.capacity) if row.capacity else "-",
        "delayed": str(row.delayed) if row.capacity else "-",
        "not published": _unpublished(row),
    }
    if rates is not None:
        found["published/s"] = _rate(rates.published, row)
    return found


def _depth(depth: int, capacity: int) -> Cell:
    text = f"{depth}/{capacity}"
    if depth >= capacity > 0:
        return Marked(text, "ERROR")
    return Marked(text, "WARNING") if depth >= _NEARLY_FULL * capacity > 0 else text


_NEARLY_FULL: Final = 0.8


def _count(count: int, role: str) -> Cell:
    return Marked(str(count), role) if count else "0"


def _reasons(counts: Mapping[str, int]) -> Cell:
    texts = _texts(counts)
    return Marked(texts, "ERROR") if texts else "0"


def _unpublished(row: EventNumbers) -> Cell:
    """Return why events were not published; a rollback is nothing to look at."""
    refused = _texts({**row.refused, "unconsumed": row.unconsumed})
    texts = [*refused, *_texts({"rolled back": row.rolled_back})]
    return Marked(texts, "ERROR") if refused else texts or "0"


def _texts(counts: Mapping[str, int]) -> list[str]:
    return [f"{reason} {count}" for reason, count in counts.items() if count]


def _rate(rate: Rate, row: ConsumerNumbers | EventNumbers) -> str:
    found = rate.get(key_of(row))
    return "-" if found is None else f"{found:.1f}"


def _pair(quantiles: Quantiles) -> str:
    if quantiles.p50 is None or quantiles.p95 is None:
        return "-"
    return f"{_seconds(quantiles.p50)}/{_seconds(quantiles.p95)}"


def _seconds(seconds: float) -> str:
    if seconds >= 2 * _MINUTE:
        return f"{seconds / _MINUTE:.0f}min"
    if seconds >= 1:
        return f"{seconds:.1f}s"
    milliseconds = seconds * 1000
    if milliseconds >= 10:  # noqa: PLR2004 - two digits are enough
        return f"{milliseconds:.0f}ms"
    return f"{milliseconds:.2g}ms" if milliseconds else "0"
