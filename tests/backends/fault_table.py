"""The table of what became of the events in each fault, and how soon it went on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import pytest

PROPERTY: Final = "gomq_fault"
"""What a test records for a line of the table."""
_HEAD: Final = (
    "server",
    "fault",
    "accepted",
    "unknown",
    "handled",
    "handled twice",
    "seconds to recover",
)

Line = Sequence[str]


def line(
    server: str,
    fault: str,
    *,
    accepted: int,
    unknown: int,
    handled: Iterable[int],
    seconds: float,
) -> Line:
    """Return a line, from what was handled and the longest time until it went on."""
    times = Counter(handled)
    twice = times.total() - len(times)
    numbers = map(str, (accepted, unknown, len(times), twice))
    return [server, fault, *numbers, f"{seconds:.1f}"]


def lines_of(terminal: pytest.TerminalReporter) -> list[Line]:
    """Return what the tests of a run have recorded, sorted."""
    return sorted(
        value
        for report in terminal.stats.get("passed", ())
        for name, value in report.user_properties
        if name == PROPERTY and report.when == "call"
    )


def text_of(lines: Iterable[Line]) -> str:
    """Return the table as docs/backends.md has it."""
    rows = [_HEAD, ["---"] * len(_HEAD), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
