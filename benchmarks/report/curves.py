"""The part of the page that `make bench-curves` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import curve_groups
from benchmarks.curve_groups import Curve, Line, curves, memory_groups
from benchmarks.figures import Figure, GroupResults, Measure, figure_of
from benchmarks.plan import FULL
from benchmarks.report.plots import Trace, draw_lines
from benchmarks.report.tables import Column, draw, draw_cases
from benchmarks.units import write

WORDS = {
    "consumers": "All consumers take the one type that is published.",
    "types": "One consumer takes all types. *First* is the first round over all of "
    "them, when their queues are made.",
    "patterns": "The patterns belong to consumers of other types. *First* is a "
    "publish of a name that was never seen.",
    "bodies": "`publish()` is given bytes, `emit()` encodes and checks them, and the "
    "handler reads the data.",
    "waiting": "Their consumer is paused; every message has a body of 50 bytes of "
    "its own. Each run has a process of its own.",
    "threads": "Events a second of all threads together, flat out, one consumer.",
    "scrape": "Consumers have two types each; for four of them there are three types. "
    "The whole view is timed, under Django's test client.",
    "workers": "Forked from a process that has loaded everything; the proportional "
    "set size of each, once its consumers have run; they share with one parent.",
}


def write_curves(results: GroupResults, images: Path) -> str:
    """Return the sections in Markdown; their plots go to ``images``."""
    sections = ["## How it grows"]
    for curve in curves(FULL):
        if curve.name in results:
            sections += [f"### {curve.title}", WORDS[curve.name]]
            sections += [_plot(curve, results, images), _table(curve, results)]
    if curve_groups.AT_REST in results:
        sections += ["## Memory", _memory(results)]
    return "\n\n".join(sections)


def _plot(curve: Curve, results: GroupResults, images: Path) -> str:
    panels: dict[str, list[Trace]] = {}
    for line in curve.lines:
        points = _points(curve, line, results)
        if points:
            trace = Trace(line.label, line.unit, points)
            panels.setdefault(line.metric if line.is_apart else line.unit, []).append(
                trace
            )
    if not panels:
        return "Nothing could be drawn."
    name = f"bench-curve-{curve.name}.svg"
    size = curve.size_metric or curve.size
    draw_lines(images / name, curve.title, size, list(panels.values()))
    return f"![{curve.title}](images/{name})"


def _points(
    curve: Curve, line: Line, results: GroupResults
) -> list[tuple[float, Figure]]:
    found = []
    for size in curve.sizes:
        figure = figure_of(curve.source(line, size), results)
        if figure is not None:
            found.append((_size_of(curve, size, results), figure))
    return found


def _size_of(curve: Curve, size: int, results: GroupResults) -> float:
    if not curve.size_metric:
        return size
    told = figure_of(Measure(curve.name, str(size), curve.size_metric), results)
    return told.median if told is not None else size


def _table(curve: Curve, results: GroupResults) -> str:
    told = [curve.size_metric] if curve.size_metric else []
    heading = [curve.size, *told, *(_heading(line) for line in curve.lines)]
    sizes = [size for size in curve.sizes if str(size) in results[curve.name]]
    return draw(heading, [_row(curve, size, results) for size in sizes])


def _heading(line: Line) -> str:
    return f"{line.label}, bytes" if line.metric == "bytes" else line.label


def _row(curve: Curve, size: int, results: GroupResults) -> Sequence[str]:
    told = [f"{_size_of(curve, size, results):,.0f}"] if curve.size_metric else []
    cells = [
        write(figure_of(curve.source(line, size), results), line.unit)
        for line in curve.lines
    ]
    return [f"{size:,}", *told, *cells]


def _memory(results: GroupResults) -> str:
    rest, passing = (group.name for group in memory_groups(FULL))

    def resident(case: str) -> Measure:
        return Measure(rest, case, "resident")

    columns = [Column("resident", resident, "B")]
    table = draw_cases("at rest", list(results.get(rest, {})), columns, results)
    before, after = (
        write(figure_of(Measure(passing, curve_groups.PASSING, metric), results), "B")
        for metric in ("before", "after")
    )
    return f"{table}\n\nBefore a million messages: {before}; after them: {after}."
