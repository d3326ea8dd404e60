"""Charts as SVG: numbers in, markup out, and no style attribute.

What stands in tables is made of short relative steps: a page of them is sent every two
seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add
from typing import Final

import msgspec
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from .amounts import UNKNOWN

_BAR_UNITS: Final = 10
"""Steps of a bar's height."""
_COARSE: Final = 10
_METER_UNITS: Final = 100


def bars(
    columns: Sequence[Sequence[int]], kinds: Sequence[str], label: str
) -> SafeString:
    """Return stacked bars, with the first of ``kinds`` at the bottom.

    Of each kind, which is also the class of its path, there is a number for each bar.
    What is not 0 is to be seen, however little it is.
    """
    reached = [columns[0]]
    for column in columns[1:]:
        is_empty = not any(column)
        below = reached[-1]
        reached.append(below if is_empty else list(map(add, below, column)))
    top = max(reached[-1], default=0) or 1
    heights: Sequence[int] = [-(-count * _BAR_UNITS // top) for count in reached[-1]]
    paths = []
    for index in range(len(columns) - 1, -1, -1):
        column = columns[index]
        if not any(column):
            continue
        paths.append(f'<path class="g-{kinds[index]}" d="{_outline(heights)}"/>')
        if index:  # what is above has to show, too
            heights = [
                min(-(-count * _BAR_UNITS // top), height - 1) if above else height
                for count, height, above in zip(
                    reached[index - 1], heights, column, strict=True
                )
            ]
    return _svg("g-bars", len(columns[0]), _BAR_UNITS, label, paths)


def _outline(heights: Sequence[int]) -> str:
    """Return bars that touch one another; the style sheet puts gaps between them."""
    steps, level, width = [f"M0 {_BAR_UNITS}"], 0, 0
    for height in heights:
        if height != level:
            steps.append(f"h{width}v{level - height}" if width else f"v{-height}")
            level, width = height, 0
        width += 1
    steps.append(f"h{width}V{_BAR_UNITS}z")
    return "".join(steps)


def area(
    values: Sequence[int], kind: str, label: str, levels: int = _COARSE
) -> SafeString:
    """Return a line, and the area below it, in the colour of this kind.

    ``levels`` are the steps of its height.
    """
    top = max(values, default=0)
    ground = levels + 1
    places = [ground - -(-value * levels // (top or 1)) for value in values]
    words, level, width = list[str](), places[0], 0
    for place in places[1:]:
        if place == level:
            width += 1
            continue
        if width:
            words.append(f"{width} 0")
        step = place - level
        words.append(f"1{step}" if step < 0 else f"1 {step}")
        level, width = place, 0
    if width:
        words.append(f"{width} 0")
    # One path is line and area: its sides and its ground are drawn out of sight.
    below = ground + 4
    path = f'<path d="M-4 {below}V{places[0]}h4l{" ".join(words)}h4V{below}z"/>'
    kind = f"g-area g-area-{kind if top else 'none'}"
    return _svg(kind, len(values) - 1, ground + 1, label, [path])


def meter(share: float, kind: str) -> SafeString:
    """Return a bar that is filled by this share of one; a little is seen, too.

    It says what the text beside it says, and nothing to those who hear the page.
    """
    width = min(_METER_UNITS, max(2, round(share * _METER_UNITS))) if share > 0 else 0
    filled = f'<path class="g-{kind}" d="M0 0h{width}v6H0z"/>' if width else ""
    return mark_safe(  # noqa: S308 - made of numbers
        f'<svg class="g-meter" viewBox="0 0 {_METER_UNITS} 6" aria-hidden="true" '
        f'preserveAspectRatio="none">{filled}</svg>'
    )


def _svg(
    kind: str, width: int, height: int, label: str, inside: Iterable[str]
) -> SafeString:
    return mark_safe(  # noqa: S308 - made of numbers, but for the label
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(label)}">{"".join(inside)}</svg>'
    )


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a chart."""

    kind: str
    """The class that gives it its colour."""
    name: str
    values: Sequence[float | None]
    """None where nothing is known: the line has a gap there."""
    is_filled: bool = False


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Lines over the last minutes, with axes."""

    title: str
    label: str
    """For those who do not see it."""
    series: Sequence[Series]
    capacity: float | None = None
    """A limit, drawn as a line where the values come near to it."""
    written: Callable[[float], str]
    """How a value is written at the axis and at the pointer."""


_WIDTH: Final = 560
_HEIGHT: Final = 150
_LEFT: Final = 44
_RIGHT: Final = 8
_TOP: Final = 10
_BOTTOM: Final = 20
_TIMES: Final = ("5 min ago", "4", "3", "2", "1", "now")
_STEPS: Final = 4
"""Parts of the vertical axis; each second of its lines has a number."""
_NEAR: Final = 0.4
"""From this share of a capacity on the axis reaches up to it."""


def draw(chart: Chart) -> SafeString:
    """Return the chart. The values ride along, for who points at it."""
    top = _top_of(chart)
    inside = [
        *_axes(top, chart.written),
        *_capacity(chart, top),
        *(path for series in chart.series for path in _line(series, top)),
        f'<line class="g-at" x1="-9" x2="-9" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>',
    ]
    told = [
        [UNKNOWN if value is None else chart.written(value) for value in series.values]
        for series in chart.series
    ]
    return mark_safe(  # noqa: S308 - what is not ours is escaped
        f'<svg class="g-chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(chart.label)}" data-told="{escape(json.dumps(told))}" '
        f'data-from="{_LEFT}" data-to="{_WIDTH - _RIGHT}">{"".join(inside)}</svg>'
    )


def _top_of(chart: Chart) -> float:
    values = [value for series in chart.series for value in series.values if value]
    highest = max(values, default=0.0)
    if chart.capacity and highest > chart.capacity * _NEAR:
        highest = max(highest, chart.capacity)
    return _rounded_up(highest)


def _rounded_up(value: float) -> float:
    """Return the next number of a kind that people divide by four in their heads."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 10) if value <= step * power)


def _y(value: float, top: float) -> int:
    return round(_TOP + (1 - min(value, top) / top) * (_HEIGHT - _TOP - _BOTTOM))


def _x(index: int, count: int) -> int:
    return round(_LEFT + index / max(1, count - 1) * (_WIDTH - _LEFT - _RIGHT))


def _axes(top: float, written: Callable[[float], str]) -> Iterator[str]:
    for step in range(_STEPS + 1):
        value = top * step / _STEPS
        y = _y(value, top)
        yield f'<path class="g-grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>'
        if step % 2 == 0:
            yield _text(_LEFT - 6, y + 4, "end", written(value))
    for index, time in enumerate(_TIMES):
        anchor = {0: "start", len(_TIMES) - 1: "end"}.get(index, "middle")
        yield _text(_x(index, len(_TIMES)), _HEIGHT - 5, anchor, time)


def _capacity(chart: Chart, top: float) -> Iterator[str]:
    if chart.capacity and chart.capacity <= top:
        y = _y(chart.capacity, top)
        yield f'<path class="g-cap" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>'
        text = f"capacity {chart.written(chart.capacity)}"
        yield _text(_WIDTH - _RIGHT, y + 12, "end", text)


def _text(x: int, y: int, anchor: str, text: str) -> str:
    return (
        f'<text class="g-tick" x="{x}" y="{y}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _line(series: Series, top: float) -> Iterator[str]:
    for points in _runs(series.values, top):
        line = " ".join(f"{x},{y}" for x, y in points)
        if series.is_filled:
            ground = _HEIGHT - _BOTTOM
            around = f"{points[0][0]},{ground} {line} {points[-1][0]},{ground}"
            kind = f"g-fill g-fill-{series.kind}"
            yield f'<polygon class="{kind}" points="{around}"/>'
        yield f'<polyline class="g-line g-line-{series.kind}" points="{line}"/>'


def _runs(
    values: Sequence[float | None], top: float
) -> Iterator[Sequence[tuple[int, int]]]:
    """Yield the points between gaps."""
    run: list[tuple[int, int]] = []
    for index, value in enumerate(values):
        if value is not None:
            run.append((_x(index, len(values)), _y(value, top)))
        elif run:
            yield run
            run = []
    if run:
        yield run
