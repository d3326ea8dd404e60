"""The table at the end of a conformance run: what each backend was found to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

PROPERTY: Final = "gomq_conformance"
"""The user property of a test's report: its suite and theme, and its verdicts."""

Verdict = tuple[str, str]
Cells = dict[tuple[str, str], Counter[str]]


def conformance_lines(reports: Iterable[Any]) -> list[str]:
    """Return a table of themes and suites, and below it what was not simply passed.

    ``reports`` are pytest's. Without a conformance suite among them there is no line.
    """
    cells: Cells = {}
    notes: dict[tuple[str, str, str], None] = {}
    for report in reports:
        for suite, theme, verdicts in _entries_of(report):
            outcomes = cells.setdefault((theme, suite), Counter())
            outcomes[_outcome(report, verdicts)] += 1
            for verdict, what in [*verdicts, *_skips(report)]:
                notes[suite, verdict, what] = None
    if not cells:
        return []
    return [*_table(cells), "", *_notes(list(notes))]


def _entries_of(report: Any) -> Iterator[tuple[str, str, Sequence[Verdict]]]:
    has_run = report.when == "call" or not report.passed
    for name, value in report.user_properties:
        if name == PROPERTY and has_run:
            (suite, theme), verdicts = value
            yield suite, theme, [(verdict, what) for verdict, what in verdicts]


def _outcome(report: Any, verdicts: Sequence[Verdict]) -> str:
    if report.failed:
        return "FAILED"
    if report.skipped:
        return "not tested"
    found = {verdict for verdict, _ in verdicts}
    if "not promised" in found:
        return "not promised"
    return "refused" if "refused" in found else "passed"


def _skips(report: Any) -> list[Verdict]:
    if not report.skipped:
        return []
    reason = str(report.longrepr[2]) if report.longrepr else "skipped"
    return [("not tested", reason.removeprefix("Skipped: not tested: "))]


def _table(cells: Cells) -> list[str]:
    suites = sorted({suite for _, suite in cells})
    rows = [["theme", *suites]] + [
        [theme, *(_cell(cells.get((theme, suite), Counter())) for suite in suites)]
        for theme in sorted({theme for theme, _ in cells})
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _cell(outcomes: Counter[str]) -> str:
    order = ("FAILED", "passed", "refused", "not promised", "not tested")
    return ", ".join(f"{outcomes[name]} {name}" for name in order if outcomes[name])


def _notes(notes: Sequence[tuple[str, str, str]]) -> list[str]:
    by_suite: dict[tuple[str, str], list[str]] = {}
    for suite, verdict, what in sorted(notes):
        by_suite.setdefault((suite, verdict), []).append(what)
    return [
        f"{suite}: {verdict}: {', '.join(found)}"
        for (suite, verdict), found in by_suite.items()
    ]
