"""A history is judged by what it holds: each kind of fault is found, and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.chaos import journal
from tests.chaos.history import CONSUMERS, MAX_GAP, History
from tests.chaos.journal import Entry

KILLED, OTHER = 1, 2
UID = "key-000000001"
NEXT = "key-000000002"
HANDLED = [
    entry
    for consumer in CONSUMERS
    for entry in (
        Entry(1.0, KILLED, "start", consumer, UID),
        Entry(2.0, KILLED, "end", consumer, UID),
    )
]


def problems(entries: Sequence[Entry], *committed: str) -> list[str]:
    return History(frozenset(committed), tuple(entries), {}).problems()


def again(start: float) -> list[Entry]:
    return [
        Entry(start, OTHER, "start", "plain", UID),
        Entry(start + 1, OTHER, "end", "plain", UID),
    ]


def test_what_everybody_handled_once_is_right() -> None:
    assert problems(HANDLED, UID) == []


def test_what_one_consumer_never_ended_is_lost() -> None:
    assert problems(HANDLED[:-1], UID) == [f"lost: {UID} by asynchronous"]


def test_what_was_rolled_back_and_handled_is_found() -> None:
    assert f"handled, though rolled back: {UID}" in problems(HANDLED)


def test_what_was_said_to_be_committed_must_be_in_the_table() -> None:
    told = Entry(0.5, OTHER, "accepted", "", NEXT)

    assert problems([*HANDLED, told], UID) == [
        f"committed, and not in the table: {NEXT}"
    ]


def test_a_repeat_without_a_kill_is_found() -> None:
    assert problems([*HANDLED, *again(3.0)], UID) == [
        f"again: {UID} by plain in {KILLED}, while the first may still run"
    ]


def test_a_repeat_after_a_kill_is_explained() -> None:
    kill = Entry(2.5, KILLED, "kill")

    assert problems([*HANDLED, kill, *again(3.0)], UID) == []


def test_a_repeat_before_the_kill_is_found() -> None:
    kill = Entry(9.0, KILLED, "kill")

    assert len(problems([*HANDLED, kill, *again(3.0)], UID)) == 1


def test_another_process_may_have_the_number_of_one_that_was_killed() -> None:
    kills = [Entry(2.5, KILLED, "kill"), Entry(90.0, KILLED, "kill")]

    assert problems([*HANDLED, *kills, *again(3.0)], UID) == []


def test_a_kill_long_after_the_end_explains_no_repeat() -> None:
    late = 3.0 + MAX_GAP

    (problem,) = problems(
        [*HANDLED, Entry(late, KILLED, "kill"), *again(late + 1)], UID
    )

    assert "unsettled" in problem


def test_what_overtakes_an_earlier_one_of_its_key_is_found() -> None:
    overtaking = [
        entry
        for consumer in CONSUMERS
        for entry in (
            Entry(0.5, OTHER, "start", consumer, NEXT),
            Entry(0.8, OTHER, "end", consumer, NEXT),
        )
    ]

    assert problems([*HANDLED, *overtaking], UID, NEXT) == [
        f"order: {NEXT} started before {UID} was done"
    ]


STALLED = [
    Entry(1.5, KILLED, "stall"),
    Entry(9.0, KILLED, "resume"),
]


def stalled(*more: Entry) -> list[Entry]:
    """Let a process stand still in its handlers, and another one take over."""
    done = [replace(each, time=9.1) if each.kind == "end" else each for each in HANDLED]
    return [*done, *STALLED, *more]


def test_what_a_process_had_that_stood_still_may_be_begun_by_others() -> None:
    assert problems(stalled(*again(8.0)), UID) == []


def test_what_it_had_not_begun_it_may_begin_until_it_knows() -> None:
    entries = [
        Entry(3.0, OTHER, "start", "plain", NEXT),
        Entry(4.0, OTHER, "end", "plain", NEXT),
        Entry(9.2, KILLED, "start", "plain", NEXT),
        Entry(9.3, KILLED, "end", "plain", NEXT),
    ]

    assert "again" not in " ".join(problems(stalled(*entries), UID, NEXT))


def test_what_it_settles_that_is_not_its_any_more_is_found() -> None:
    third = [
        Entry(9.2, KILLED, "start", "plain", UID),
        Entry(9.4, KILLED, "end", "plain", UID),
    ]

    assert problems(stalled(*again(8.5), *third), UID) == [
        f"again: {UID} by plain in {OTHER}, while the first may still run"
    ]


def test_a_key_is_with_one_process_at_a_time() -> None:
    entries = [
        Entry(8.0, OTHER, "start", "ordered", UID),
        Entry(9.5, OTHER, "end", "ordered", UID),
        Entry(9.2, 3, "start", "ordered", NEXT),
        Entry(9.9, 3, "end", "ordered", NEXT),
    ]

    found = problems(stalled(*entries), UID, NEXT)

    assert f"at once: {NEXT} started while {UID} was in work" in found


def test_a_dead_letter_that_nobody_asked_for_is_found() -> None:
    letters = {("plain", UID): "ValueError: a bug"}

    found = History(frozenset([UID]), tuple(HANDLED), letters).problems()

    assert found == [f"dead letter: {UID} by plain: ValueError: a bug"]


@pytest.mark.parametrize(("seconds", "explains"), [(1.0, False), (4.0, True)])
def test_a_server_that_was_away_for_as_long_as_leases_last_explains_a_repeat(
    seconds: float, explains: bool
) -> None:
    entries = [
        Entry(2.5, OTHER, "crash"),
        Entry(2.5 + seconds, OTHER, "up"),
        *again(3.0 + seconds),
    ]

    assert (problems([*HANDLED, *entries], UID) == []) == explains


def judged_by_receipts(*entries: Entry) -> list[str]:
    committed = frozenset([UID, NEXT])
    every = (*HANDLED, *entries)
    return History(committed, every, {}, is_transactional=False).problems()


def test_without_a_transaction_only_what_a_receipt_accepts_must_be_handled() -> None:
    assert judged_by_receipts() == []


def test_what_a_receipt_accepts_and_nobody_handles_is_lost() -> None:
    accepted = Entry(0.5, OTHER, "accepted", "", NEXT)

    lost = [f"lost: {NEXT} by {consumer}" for consumer in CONSUMERS]
    assert judged_by_receipts(accepted) == lost


def test_what_was_refused_and_is_handled_is_found() -> None:
    refused = Entry(0.5, OTHER, "refused", "", UID)

    assert judged_by_receipts(refused) == [f"handled, though refused: {UID}"]


def test_where_no_order_is_promised_none_is_missed() -> None:
    first = [replace(each, message=NEXT, time=0.5) for each in HANDLED]
    entries = (*first, *HANDLED)

    history = History(frozenset([UID, NEXT]), entries, {}, is_ordered=False)

    assert history.problems() == []


def test_a_line_that_is_half_written_counts_for_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "7.journal").write_text('[1.0, 7, "start", "plain", "a"]\n[2.0, 7, "en')

    assert list(journal.read_of(tmp_path, 7)) == [Entry(1.0, 7, "start", "plain", "a")]
