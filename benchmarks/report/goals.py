"""The part of the page that `make bench` writes: the goals, then what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.figures import GroupResults
from benchmarks.report.sections import SECTIONS
from benchmarks.report.tables import draw
from benchmarks.targets import Goal, goals
from benchmarks.units import write, write_value

WORDS = """\
*Reached* is how far a goal is met: 1 and more is. Ids, clocks, priorities, hard bounds,
exact counts and histograms are on everywhere; counting cannot be turned off."""


def write_goals(results: GroupResults, images: Path) -> str:
    """Return the sections of what was run, in Markdown; plots go to ``images``."""
    wanted = [goal for goal in goals() if goal.source.group in results]
    parts = [f"## Goals\n\n{WORDS}\n\n{draw_goals(results, wanted)}"] if wanted else []
    for section in SECTIONS:
        if section.group in results:
            words = [section.words] if section.words else []
            parts += [f"## {section.title}", *words, section.draw(results, images)]
    return "\n\n".join(parts)


def draw_goals(results: GroupResults, wanted: Iterable[Goal]) -> str:
    """Return one row for each goal, with how far it is reached."""
    heading = ["goal", "what", "target", "measured", "reached", "met"]
    return draw(heading, [_row(goal, results) for goal in wanted])


def _row(goal: Goal, results: GroupResults) -> Sequence[str]:
    figure = goal.figure(results)
    bound = f"{'≥' if goal.is_least else '≤'} {write_value(goal.limit, goal.unit)}"
    reached = goal.reached(figure) if figure is not None else 0.0
    is_met = "yes" if reached >= 1.0 else "no"
    measured = write(figure, goal.unit)
    return [goal.name, goal.what, bound, measured, f"{reached:.2f}", is_met]
