"""The table says what became of the messages, a line for each consumer."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from acceptance import table
from acceptance.check import Check
from acceptance.run import check_visits, progress
from acceptance.scrape import parse
from clinic.simulation.tally import Counts
from tests.metrics_text import QUIET


def counts(**changes: object) -> Counts:
    values: dict[str, object] = {
        "requests": 30,
        "unanswered": 0,
        "records": 12,
        "statuses": Counter({200: 17, 201: 12, 422: 1}),
        "events": Counter(),
    }
    return Counts(**{**values, **changes})  # type: ignore[arg-type]


def test_a_line_holds_the_numbers_of_its_consumer() -> None:
    (_, audit, laboratory) = table.consumer_table(parse(QUIET)).splitlines()

    assert audit.split()[:7] == ["audit.trail", "14", "0", "0", "0", "0", "0"]
    assert laboratory.split("  ")[0] == "laboratory.analysis"
    assert "channel_full 3" in laboratory
    assert "shutdown" not in laboratory
    assert [word for word in laboratory.split() if word.isdigit()][:4] == list("5753")


def test_quantiles_stand_behind_the_numbers() -> None:
    laboratory = table.consumer_table(parse(QUIET)).splitlines()[-1]

    assert " ".join(laboratory.split()).endswith("0.1 s 0.91 s 0.98 s - - -")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "-"),
        (0.00042, "0.42 ms"),
        (0.031, "31 ms"),
        (0.0999, "100 ms"),
        (2.5, "2.5 s"),
        (120, "120 s"),
    ],
)
def test_durations_are_written_for_people(value: float, text: str) -> None:
    assert table.seconds(value) == text


def test_a_check_that_fails_is_marked() -> None:
    text = table.checks(
        "title", [Check("a", "x", 1, "y", 1), Check("b", "x", 1, "y", 2)]
    )

    assert text.splitlines() == ["title", "  ok  a: x 1 = 1 y", "  BAD b: x 1 ≠ 2 y"]


def test_progress_is_one_line_of_what_happens() -> None:
    line = progress(3.2, "slow", counts(), parse(QUIET))

    assert line == (
        "    3 s  laboratory slow   | 30 of 30 requests answered | "
        "14 published, 19 handled, 0 on their way | "
        "laboratory.analysis dropped 3 | laboratory.analysis gave up on 2"
    )


def test_every_request_answered_and_every_record_saved_holds() -> None:
    assert all(check.holds for check in check_visits(counts(), 13, saved_by_others=1))


@pytest.mark.parametrize(
    "changes",
    [{"unanswered": 1}, {"statuses": Counter({500: 1})}, {"records": 11}],
)
def test_a_lost_answer_an_error_and_a_lost_record_are_found(
    changes: dict[str, object],
) -> None:
    checks = check_visits(counts(**changes), 12, saved_by_others=0)

    assert [check.holds for check in checks].count(False) == 1
