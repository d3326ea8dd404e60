"""Bars and lines as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.figures import Figure
from benchmarks.units import write_count, write_value

OURS = "#0c7b4b"
OTHERS = "#9aa5ad"
LINES = (OURS, "#c2571a", "#3b6fb6")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9eb",
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "font.family": ["sans-serif"],
    "svg.hashsalt": "django-gomq",  # equal figures, equal files
}
WIDTH = 8.0  # inches
WIDE = 200  # times the smallest size: there is room for a label at each
STEEP = 30  # times the least value: a linear axis would hide what is small


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; its whisker is the spread of the rounds."""

    label: str
    figure: Figure
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """One line over sizes."""

    label: str
    unit: str
    points: Sequence[tuple[float, Figure]]


def draw_bars(path: Path, title: str, unit: str, bars: Sequence[Bar]) -> None:
    """Draw bars in their order from the top, on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.7 + 0.26 * len(bars)))
        shown = list(reversed(bars))
        axes.barh(
            [bar.label for bar in shown],
            [bar.figure.median for bar in shown],
            color=[OURS if bar.is_ours else OTHERS for bar in shown],
            xerr=_whiskers([bar.figure for bar in shown]),
            error_kw={"elinewidth": 1, "ecolor": "#33383c"},
        )
        axes.set_xscale("log")
        for place, bar in enumerate(shown):
            axes.annotate(
                write_value(bar.figure.median, unit), (bar.figure.most, place),
                xytext=(4, 0), textcoords="offset points", va="center",
            )  # fmt: skip
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        _finish(path, figure, title, {axes.xaxis: unit})


def draw_lines(
    path: Path, title: str, size: str, panels: Sequence[Sequence[Trace]]
) -> None:
    """Draw lines over a logarithmic size, each group of them in a panel."""
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(1, len(panels), figsize=(WIDTH, 2.8), squeeze=False)
        for axes, traces in zip(grid[0], panels, strict=True):
            for color, trace in zip(LINES, traces, strict=False):
                _draw_trace(axes, trace, color)
            _set_sizes(axes, traces)
            _set_values(axes, traces)
            axes.set_xlabel(size)
            axes.legend(frameon=False, loc="best")
        pairs = zip(grid[0], panels, strict=True)
        units = {axes.yaxis: traces[0].unit for axes, traces in pairs}
        _finish(path, figure, title, units)


def _set_sizes(axes: Any, traces: Sequence[Trace]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write_count(value)))
    sizes = sorted({size for trace in traces for size, _ in trace.points})
    if sizes[-1] / sizes[0] <= WIDE:  # else decades, as labels would overlap
        axes.set_xticks(sizes)
        axes.xaxis.set_minor_locator(NullLocator())


def _set_values(axes: Any, traces: Sequence[Trace]) -> None:
    values = [one.median for trace in traces for _, one in trace.points if one.median]
    if values and max(values) / min(values) > STEEP:
        axes.set_yscale("log", nonpositive="mask")  # what did not grow has no place
    else:
        axes.set_ylim(
            0, 1.1 * max(one.most for line in traces for _, one in line.points)
        )


def _draw_trace(axes: Any, trace: Trace, color: str) -> None:
    sizes = [size for size, _ in trace.points]
    figures = [figure for _, figure in trace.points]
    axes.errorbar(
        sizes, [one.median for one in figures], yerr=_whiskers(figures), color=color,
        marker="o", markersize=3.5, linewidth=1.4, elinewidth=0.8, label=trace.label,
    )  # fmt: skip


def _whiskers(figures: Sequence[Figure]) -> list[list[float]]:
    return [
        [one.median - one.least for one in figures],
        [one.most - one.median for one in figures],
    ]


def _finish(path: Path, figure: Any, title: str, units: Mapping[Any, str]) -> None:
    for axis, unit in units.items():
        axis.set_major_formatter(FuncFormatter(_writer(unit)))
        axis.set_minor_formatter(NullFormatter())
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _writer(unit: str) -> Callable[[float, int], str]:
    return lambda value, _: write_value(value, unit) if value else "0"
