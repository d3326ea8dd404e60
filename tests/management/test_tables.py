"""Tables fit their screen, and colour changes no width."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

from django_gomq.management.stats.numbers import (
    ConsumerNumbers,
    EventNumbers,
    Numbers,
    Quantiles,
    Snapshot,
    rates_between,
)
from django_gomq.management.stats.render import as_table
from django_gomq.management.tables import Cell, Marked, Screen, screen_of

PLAIN = Screen()
COLOURED = Screen(style=color_style(force_color=True))


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_a_table_is_as_wide_as_its_texts() -> None:
    table = PLAIN.table("Two", ("name", "count"), [("a", "1")], right=["count"])

    assert table.splitlines() == ["Two", "  name  count", "  a         1"]


def test_without_rows_there_is_no_table() -> None:
    assert PLAIN.table("None", ("name",), []) == ""


def test_lists_are_broken_before_names_and_names_at_their_dots() -> None:
    row = ("health.record.saved", ["one.consumer", "another.consumer"])

    wide = Screen(50).table("T", ("event", "consumers"), [row])
    narrow = Screen(36).table("T", ("event", "consumers"), [row])

    assert wide.splitlines()[2:] == [
        "  health.record.saved  one.consumer,",
        "                       another.consumer",
    ]
    assert narrow.splitlines()[2:] == [
        "  health.record.    one.consumer,",
        "  saved             another.consumer",
    ]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_whatever_stands_in_it_a_table_fits(width: int) -> None:
    rows: list[list[Cell]] = [
        ["x" * 70, ["y" * 90, "z"], "12"],
        ["a.b", [], Marked(["queue_full 109"], "ERROR")],
    ]

    table = Screen(width).table("T", ("event", "consumers", "in flight"), rows)

    assert max(map(len, table.splitlines())) <= width
    letters = "".join(table.split())
    assert (letters.count("x"), letters.count("y")) == (70, 90)


def test_a_long_header_is_broken_where_there_is_no_room() -> None:
    table = Screen(28).table(
        "T", ("consumer", "in flight", "oldest"), [("statistics", "1", "2")]
    )

    assert table.splitlines()[1:] == [
        "  consumer    in      oldest",
        "              flight",
        "  statistics  1       2",
    ]


def test_colour_changes_nothing_else() -> None:
    rows = [("a", Marked("0", "ERROR")), ("b", Marked(["1", "2"], "WARNING"))]

    plain = PLAIN.table("T", ("name", "count"), rows, right=["count"])
    coloured = COLOURED.table("T", ("name", "count"), rows, right=["count"])

    assert without_colour(coloured) == plain
    assert coloured.count("\x1b[0m") == 3  # the title too


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("output", "no_color", "force_color", "environ", "is_coloured"),
    [
        (io.StringIO(), False, False, "", False),
        (io.StringIO(), False, True, "", True),
        (Terminal(), False, False, "", True),
        (Terminal(), True, False, "", False),
        (Terminal(), False, False, "1", False),
        (Terminal(), False, True, "1", True),
    ],
)
def test_who_gets_colours(
    monkeypatch: pytest.MonkeyPatch,
    output: io.StringIO,
    no_color: bool,
    force_color: bool,
    environ: str,
    is_coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", environ)
    monkeypatch.setattr("sys.stdout", output)  # Django's palette asks it too

    screen = screen_of(
        OutputWrapper(output), no_color=no_color, force_color=force_color
    )

    assert ("\x1b[" in screen.paint("ERROR", "a")) is is_coloured


def test_a_terminal_is_used_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "132")

    def width(output: io.StringIO) -> int:
        wrapped = OutputWrapper(output)
        return screen_of(wrapped, no_color=True, force_color=False).width

    assert width(Terminal()) == 132
    assert width(io.StringIO()) == 80
    monkeypatch.setenv("COLUMNS", "10")
    assert width(Terminal()) == 40


QUANTILES = Quantiles(p50=0.00055, p95=0.955)
CONSUMER = ConsumerNumbers(
    broker="default",
    consumer="notifications.patient",
    depth=1000,
    capacity=1000,
    scheduled=120,
    in_flight=12,
    oldest_age_seconds=12.3,
    paused=True,
    handled=13125,
    failed=1200,
    retried=1200,
    dead_lettered=45,
    dropped={"channel_full": 109, "expired": 0, "shutdown": 3},
    wait_seconds_est=QUANTILES,
    handler_seconds_est=QUANTILES,
)
EVENT = EventNumbers(
    broker="default",
    event="health.record.saved",
    published=26816,
    refused={"queue_full": 12, "timeout": 0},
    unconsumed=3,
    rolled_back=4,
    depth=850,
    capacity=1000,
    delayed=2,
)


def snapshot() -> Snapshot:
    quiet = msgspec.structs.replace(CONSUMER, consumer="quiet", dropped={})
    numbers = Numbers(
        processes=2, started=1.0, consumers=[CONSUMER, quiet], events=[EVENT]
    )
    later = Snapshot(source="here", numbers=numbers, over=["Channel is full."])
    return later.with_rates(rates_between(numbers, numbers, 2.0))


def test_the_numbers_of_a_busy_site_fit_eighty_columns_with_their_rates() -> None:
    table = as_table(snapshot(), PLAIN)

    assert max(map(len, table.splitlines())) <= 80
    assert "channel_full 109, shutdown 3" in " ".join(table.split())
    assert "queue_full 12" in table
    assert "rolled back 4" in " ".join(table.split())


def test_a_loss_is_coloured_and_a_zero_is_not() -> None:
    table = as_table(snapshot(), COLOURED)

    lost = re.findall(r"\x1b\[31;1m(.*?)\x1b\[0m", table)
    assert any("channel_full 109" in text for text in lost)
    assert "1000/1000" in lost
    assert "0" not in lost
