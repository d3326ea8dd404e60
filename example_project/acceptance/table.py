"""The last words of a run as text: a table by consumer, then each comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from acceptance.check import Check
from acceptance.law import consumers, left
from acceptance.quantiles import quantile
from acceptance.scrape import Scrape

_FAILURES = ("error", "timeout", "rejected")
_HEAD = (
    *("consumer", "handled", "failed", "retried", "dropped", "dead-lettered", "left"),
    *("wait p50", "p95", "p99", "handler p50", "p95", "p99"),
)
_TEXT_COLUMNS = (0, 4)
"""The consumer's name, and the drops with their reasons."""


def consumer_table(scrape: Scrape) -> str:
    """Lay out what became of the messages, a line for each consumer."""
    return align([_HEAD, *(_line(scrape, name) for name in consumers(scrape))])


def checks(title: str, found: Iterable[Check]) -> str:
    """List comparisons under a title, the failed ones marked."""
    lines = [f"  {'ok ' if check.holds else 'BAD'} {check}" for check in found]
    return "\n".join([title, *lines])


def align(rows: Sequence[Sequence[str]]) -> str:
    """Pad every column to its widest cell: text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n in _TEXT_COLUMNS else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def seconds(value: float) -> str:
    """Write a duration the way people read it."""
    if math.isnan(value):
        return "-"
    number, unit = (value * 1000, "ms") if value < 0.1 else (value, "s")
    return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"


def _line(scrape: Scrape, consumer: str) -> tuple[str, ...]:
    outcomes = scrape.by("outcome", "gomq_messages_processed_total", consumer=consumer)
    numbers = (
        outcomes.get("success", 0),
        sum(outcomes.get(name, 0) for name in _FAILURES),
        scrape.total("gomq_message_retries_total", consumer=consumer),
    )
    return (
        consumer,
        *(f"{number:.0f}" for number in numbers),
        _dropped(scrape, consumer),
        f"{scrape.total('gomq_messages_dead_lettered_total', consumer=consumer):.0f}",
        f"{left(scrape, consumer):.0f}",
        *_quantiles(scrape, "gomq_message_wait_seconds", consumer),
        *_quantiles(scrape, "gomq_handler_duration_seconds", consumer),
    )


def _dropped(scrape: Scrape, consumer: str) -> str:
    reasons = scrape.by("reason", "gomq_messages_dropped_total", consumer=consumer)
    told = [f"{reason} {number:.0f}" for reason, number in reasons.items() if number]
    return ", ".join(sorted(told)) or "0"


def _quantiles(scrape: Scrape, name: str, consumer: str) -> tuple[str, ...]:
    buckets = scrape.buckets(name, consumer=consumer)
    return tuple(seconds(quantile(q, buckets)) for q in (0.5, 0.95, 0.99))
