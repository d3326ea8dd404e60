"""Answers and rows are held against the metrics, event by event."""

from __future__ import annotations

from collections import Counter

from acceptance.check import Check
from acceptance.scrape import parse
from acceptance.sources import check_answers, check_rows
from acceptance.visitors import others
from tests.metrics_text import QUIET

TOLD = Counter(
    {
        ("health.record.saved", "accepted"): 10,
        ("health.record.saved", "refused"): 2,
        ("patient.created", "sent"): 4,
    }
)
ROWS = {"audit.trail": 14, "laboratory.analysis": 5}


def broken(checks: list[Check]) -> list[str]:
    return [str(check) for check in checks if not check.holds]


def test_answers_that_agree_with_the_metrics_hold() -> None:
    assert broken(check_answers(TOLD, parse(QUIET))) == []


def test_an_answer_more_than_was_published_is_found() -> None:
    told = TOLD + Counter({("health.record.saved", "accepted"): 1})

    assert broken(check_answers(told, parse(QUIET))) == [
        "health.record.saved: answers 11 ≠ 10 published"
    ]


def test_an_event_that_no_answer_told_of_is_found() -> None:
    told = Counter({k: n for k, n in TOLD.items() if k[0] != "patient.created"})

    assert broken(check_answers(told, parse(QUIET))) == [
        "patient.created: answers 0 ≠ 4 published"
    ]


def test_a_refusal_that_the_metrics_do_not_know_is_found() -> None:
    told = TOLD + Counter({("patient.created", "refused"): 1})

    assert "patient.created: answers refused 1 ≠ 0 refused" in broken(
        check_answers(told, parse(QUIET))
    )


def test_a_rollback_is_held_against_the_metrics() -> None:
    line = 'gomq_messages_rolled_back_total{event="health.record.saved"} 3\n'
    told = {("health.record.saved", "rolled_back"): 3}

    assert broken(check_answers(TOLD + Counter(told), parse(QUIET + line))) == []
    assert broken(check_answers(TOLD, parse(QUIET + line))) == [
        "health.record.saved: answers after a rollback 0 ≠ 3 rolled back"
    ]


def test_the_metrics_may_tell_refusals_of_events_without_a_receipt() -> None:
    line = 'gomq_messages_refused_total{event="patient.created",reason="queue_full"} 1'
    told = TOLD + Counter({("patient.created", "sent"): 1})

    assert broken(check_answers(told, parse(f"{QUIET}{line}\n"))) == []


def test_rows_that_agree_with_the_metrics_hold() -> None:
    assert broken(check_rows(ROWS, parse(QUIET))) == []


def test_a_lost_row_is_found() -> None:
    rows = {**ROWS, "audit.trail": 13}

    assert broken(check_rows(rows, parse(QUIET))) == [
        "audit.trail: rows 13 ≠ 14 handled"
    ]


def test_a_consumer_without_series_is_found() -> None:
    rows = {**ROWS, "statistics.pages": 1}

    assert broken(check_rows(rows, parse(QUIET))) == [
        "statistics.pages: rows 1 ≠ 0 handled"
    ]


def test_the_access_log_tells_what_others_did() -> None:
    lines = [
        "page.viewed=accepted*1\tMozilla/5.0\n",
        "page.viewed=accepted*1, patient.created=sent*1\tcurl/8\n",
        "page.viewed=accepted*1\tdriver\n",
        "-\tMozilla/5.0\n",
    ]

    assert others(lines, driver="driver") == Counter(
        {("page.viewed", "accepted"): 2, ("patient.created", "sent"): 1}
    )
