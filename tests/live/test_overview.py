"""What the first screen says of a reading."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from django_gomq.live import overview
from django_gomq.live.reading import (
    Bar,
    ConsumerReading,
    Finding,
    Reading,
    Source,
    State,
)
from django_gomq.live.rows import Columns, consumer_row, held_before, status_of
from django_gomq.operations.viewing import Desired
from tests.live.crowd import crowd

CROWD = crowd()
FIRST = CROWD.consumers[0]
ROOT = "/live/"


def reading(*findings: Finding, **changed: Any) -> Reading:
    return msgspec.structs.replace(CROWD, findings=findings, **changed)


def consumer(**changed: Any) -> ConsumerReading:
    return msgspec.structs.replace(FIRST, **changed)


def finding(name: str, text: str, *, is_bad: bool = True, event: str = "") -> Finding:
    return Finding(
        is_bad=is_bad, broker="default", consumer=name, event=event, text=text
    )


def said(found: Reading) -> tuple[str, str]:
    verdict = overview.verdict(found, ROOT)
    parts = [f"{one.name} {one.text}".strip() for one in verdict.told]
    return verdict.kind, " ".join([verdict.lead, *parts])


def test_the_verdict_says_that_all_is_well() -> None:
    assert said(reading(consumers=(), lost=0)) == (
        "ok",
        "All is well. Nothing was lost in the last five minutes.",
    )


def test_the_verdict_names_the_worst_and_links_to_it() -> None:
    found = reading(
        finding("lab.analysis", "dropped 59 messages (channel full)"),
        finding("billing.ledger", "fails 31% of its attempts"),
        consumers=(consumer(), consumer(consumer="lab.analysis")),
    )

    kind, text = said(found)
    links = [one.address for one in overview.verdict(found, ROOT).told]

    assert kind == "bad"
    assert text == (
        "2 of 2 consumers need a look. lab.analysis dropped 59 messages (channel "
        "full); billing.ledger fails 31% of its attempts."
    )
    assert links[0] == "/live/consumers/default/lab.analysis/"


def test_the_verdict_stays_short() -> None:
    many = [finding(f"one{number}", "falls behind", is_bad=False) for number in "12345"]
    kind, text = said(reading(*many, consumers=(), lost=0))

    assert kind == "warn"
    assert "one3 falls behind; and 2 more." in text


def test_the_verdict_tells_of_refused_events_and_of_who_is_paused() -> None:
    paused = consumer(consumer="search.index", state=State.PAUSED)
    found = reading(finding("", "3 messages refused", event="page.viewed"))
    found = msgspec.structs.replace(found, consumers=(paused,))

    assert said(found) == (
        "bad",
        "Events are refused. page.viewed: 3 messages refused. search.index is paused.",
    )


@pytest.mark.parametrize(
    ("source", "count", "text"),
    [
        (Source.PROCESS, 1, "This process only"),
        (Source.DIRECTORY, 2, "This server, 2 processes"),
        (Source.TABLE, 1, "1 process"),
        (Source.TABLE, 4, "All 4 processes"),
    ],
)
def test_it_says_whose_numbers_these_are(source: Source, count: int, text: str) -> None:
    found = reading(source=source, process_count=count)

    assert overview.scope(found) == text


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_word_a_shape_and_a_colour(state: State) -> None:
    shown = status_of(consumer(state=state))

    assert f"g-badge-{shown.kind}" in shown.badge
    assert "<svg" in shown.badge


@pytest.mark.parametrize(
    ("changed", "word", "why"),
    [
        ({"state": State.PAUSING, "paused_in": 1, "processes": 2}, "1 of 2", ""),
        ({"state": State.RESUMING, "paused_in": 1, "processes": 2}, "1 of 2", ""),
        ({"state": State.FILLING, "paused_in": 1}, "Paused, filling", ""),
        (
            {"state": State.PAUSED, "desired": Desired(paused=True, changed_by="anna")},
            "Paused",
            "by anna",
        ),
        (
            {
                "state": State.PAUSED_LOSING,
                "dropped": {"channel_full": 2},
                "paused_in": 2,
                "processes": 2,
            },
            "Paused, losing",
            "channel full",
        ),
        (
            {
                "state": State.PAUSED_LOSING,
                "dropped": {"channel_full": 2},
                "paused_in": 1,
                "processes": 2,
            },
            "Losing, paused in 1 of 2",
            "channel full",
        ),
        ({"state": State.STUCK, "running_seconds": 180.0}, "Stuck", "for 3"),
        ({"state": State.FAILING, "failed_share": 0.31}, "Failing", "31% of attempts"),
    ],
)
def test_a_state_says_how_far_it_is_and_why(
    changed: dict[str, Any], word: str, why: str
) -> None:
    shown = status_of(consumer(**changed))

    assert word in shown.badge
    assert shown.why.startswith(why)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"full_in": 39.0}, "full in 39"),
        ({"full_in": None, "spilled": 7}, "7 spilled"),
        ({"full_in": None, "oldest_age": 2.0}, "oldest 2.0"),
        ({"full_in": None, "oldest_age": 0.1}, ""),
    ],
)
def test_a_row_tells_what_its_channel_comes_to(
    changed: dict[str, Any], text: str
) -> None:
    assert text in consumer_row(consumer(**changed), ROOT).outlook


@pytest.mark.parametrize(
    ("wanted", "paused_in", "is_paused"),
    [(None, 0, False), (None, 1, True), (True, 0, True), (False, 1, False)],
)
def test_the_button_undoes_what_is_wanted(
    wanted: bool | None, paused_in: int, is_paused: bool
) -> None:
    found = consumer(desired=Desired(paused=wanted), paused_in=paused_in)

    assert consumer_row(found, ROOT).is_paused is is_paused


def test_what_was_held_follows_from_what_came_and_went() -> None:
    bars = [Bar(dispatched=5), Bar(handled=2, dropped=1), Bar(handled=1)]
    columns = Columns(*zip(*map(msgspec.structs.astuple, bars), strict=True))

    assert held_before(1, columns) == [5, 2, 1]


def test_a_site_without_consumers_has_a_page() -> None:
    found = overview.context(reading(consumers=(), events=()), ROOT)

    assert len(found["tiles"]) == 5
    assert found["consumers"] == []
