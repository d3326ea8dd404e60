from __future__ import annotations

import json
import re
from html import unescape

from django_gomq.live import amounts, svg
from tests.live.policy import broken_rules


def outlines(chart: str) -> dict[str, str]:
    """Return the outline of each kind."""
    return dict(re.findall(r'class="g-(\w+)" d="([^"]+)"', chart))


def test_bars_are_as_high_as_their_share_of_the_highest() -> None:
    chart = svg.bars([[0, 5, 10, 10]], ["ok"], "handled")

    assert outlines(chart) == {"ok": "M0 10h1v-5h1v-5h2V10z"}


def test_one_failure_among_thousands_is_seen() -> None:
    chart = svg.bars([[9_999, 10], [1, 0]], ["ok", "bad"], "handled, failed")

    # The failed part reaches one step above the handled one, at the top.
    assert outlines(chart) == {"bad": "M0 10v-10h1v9h1V10z", "ok": "M0 10v-9h1v8h1V10z"}


def test_a_part_that_is_always_0_is_not_drawn() -> None:
    chart = svg.bars([[1], [0], [0]], ["ok", "bad", "lost"], "all handled")

    assert list(outlines(chart)) == ["ok"]


def test_an_area_says_level_stretches_at_once() -> None:
    chart = svg.area([0, 0, 0, 5, 10, 10], "flow", "emitted")

    assert "h4l2 0 1-5 1-5 1 0h4" in chart
    assert 'class="g-area g-area-flow"' in chart


def test_an_area_of_nothing_has_no_colour() -> None:
    assert 'class="g-area g-area-none"' in svg.area([0, 0], "bad", "lost")


def test_labels_are_escaped() -> None:
    name = '"><script>alert(1)</script>'

    for chart in (svg.bars([[1]], ["ok"], name), svg.area([1, 1], "ok", name)):
        assert broken_rules(chart) == []
        assert "<script>" not in chart


def test_a_meter_shows_a_little_and_never_more_than_all() -> None:
    widths = [
        re.findall(r"h(\d+)v6", svg.meter(share, "flow")) for share in (0, 1e-6, 0.5, 2)
    ]

    assert widths == [[], ["2"], ["50"], ["100"]]


def chart_of(*values: float | None, capacity: float | None = None) -> svg.Chart:
    return svg.Chart(
        title="Held",
        label="messages held",
        series=[svg.Series(kind="flow", name="messages", values=values)],
        capacity=capacity,
        written=amounts.about,
    )


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    drawn = svg.draw(chart_of(1, 2, None, 3, 4))

    assert drawn.count("<polyline") == 2
    told = json.loads(unescape(re.findall(r'data-told="([^"]+)"', drawn)[0]))
    assert told == [["1", "2", amounts.UNKNOWN, "3", "4"]]


def test_a_capacity_is_drawn_once_values_come_near_to_it() -> None:
    assert "capacity" not in svg.draw(chart_of(1, 2, capacity=1_000))
    assert "capacity 1" in svg.draw(chart_of(1, 600, capacity=1_000))


def test_a_chart_of_nothing_has_an_axis() -> None:
    drawn = svg.draw(chart_of(0, 0, 0))

    assert ">1<" in drawn
    assert broken_rules(drawn) == []
