"""The part of the page that `make bench-pythons` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import GroupResults, Measure, figure_of, ratio
from benchmarks.plan import lane_of
from benchmarks.report.tables import draw
from benchmarks.targets import Goal, goals
from benchmarks.units import write

LEAST = 0.7
WORDS = f"""\
Every case on all interpreters in the same interleaved rounds. *Speed* is how fast the
one is beside the first, round by round; the goal (G15) is ≥ {LEAST} for each row."""


def write_pythons(results: GroupResults, images: Path) -> str:
    """Return the section in Markdown; it has no plot."""
    labels = _labels_in(results)
    first, *others = labels
    heading = ["goal", "what", first, *(f"{one} | speed | met" for one in others)]
    rows = [_row(goal, labels, results) for goal in _measured_goals()]
    table = draw([*" | ".join(heading).split(" | ")], rows)
    return f"## Python {' and '.join(labels)}\n\n{WORDS}\n\n{table}"


def _labels_in(results: GroupResults) -> list[str]:
    """Return the interpreters in the order in which they were given."""
    found: dict[str, None] = {}
    for cases in results.values():
        for case in cases:
            found[case.rpartition("Python ")[2]] = None
    return list(found)


def _measured_goals() -> Iterator[Goal]:
    """Yield the goals that are one figure of this project, and no ratio."""
    return (goal for goal in goals() if isinstance(goal.source, Measure))


def _row(goal: Goal, labels: Sequence[str], results: GroupResults) -> list[str]:
    first, *others = (_on(goal, label) for label in labels)
    cells = [goal.name, goal.what, write(figure_of(first, results), goal.unit)]
    for other in others:
        is_rate = goal.unit == "/s"
        speed = ratio(other, first) if is_rate else ratio(first, other)
        figure = figure_of(speed, results)
        is_met = figure is not None and figure.median >= LEAST
        cells += [
            write(figure_of(other, results), goal.unit),
            write(figure, "x"),
            "yes" if is_met else "no",
        ]
    return cells


def _on(goal: Goal, label: str) -> Measure:
    source = goal.source
    if not isinstance(source, Measure):
        raise TypeError(f"{goal.what} is no single figure")
    return replace(source, case=lane_of(source.case, label))
