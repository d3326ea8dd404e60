from __future__ import annotations

from dataclasses import replace

import pytest

from tests.servers.results import Result
from tests.servers.table import find_differences, render

DRAINED = Result(
    name="gunicorn",
    consumers="each worker, not their parent",
    queued="20 of 20 handled",
    drained_by="threading",
    status=0,
    seconds=1.4,
    stuck_left=3,
    stuck_seconds=1.6,
)
LOST = replace(DRAINED, name="uvicorn", queued="lost: it is killed", drained_by="")


def page_of(*results: Result) -> str:
    return f"# Page\n<!-- servers -->\n{render(results)}<!-- /servers -->\n"


def test_a_row_tells_what_became_of_the_queued_events() -> None:
    table = render([DRAINED, LOST])

    assert "| `gunicorn` | each worker, not their parent | 20 of 20 handled |" in table
    assert "| lost: it is killed |" in table


def test_other_seconds_are_no_difference() -> None:
    slower = replace(DRAINED, seconds=2.1, stuck_seconds=1.9)

    assert find_differences(page_of(DRAINED), [slower]) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(DRAINED, status=1),
        replace(DRAINED, queued="19 of 20 handled"),
        replace(DRAINED, drained_by="atexit"),
    ],
)
def test_anything_else_is_told_with_both_lines(other: Result) -> None:
    differences = find_differences(page_of(DRAINED), [other])

    assert [line[:3] for line in differences] == ["- |", "+ |"]


def test_a_row_that_did_not_run_here_is_not_compared() -> None:
    assert find_differences(page_of(DRAINED, LOST), [LOST]) == []


def test_a_row_that_the_page_lacks_is_told() -> None:
    (difference,) = find_differences(page_of(DRAINED), [DRAINED, LOST])

    assert difference.startswith("+ | `uvicorn`")
