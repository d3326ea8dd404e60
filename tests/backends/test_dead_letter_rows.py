"""Dead letters are chosen, counted, replayed and discarded on every database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from django.db import connections
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database import dead_letters, upkeep
from django_gomq.backends.database.connection import OwnConnection
from django_gomq.backends.database.outbox import hash_of_key
from django_gomq.bus.patterns import Pattern
from django_gomq.dead_letters.rows import Choice, by_fault, discard, replay, steps
from django_gomq.models import DueDelivery, HistoryEvent, StoredDeadLetter
from tests.backends.databases import ALIAS, TABLES, execute
from tests.bus.waiting import LONG
from tests.django_site import burying

bury = partial(burying.bury, using=ALIAS)


@pytest.fixture(autouse=True)
def _emptied(vendor: str) -> Iterator[None]:
    yield
    for model in TABLES:
        execute(f"DELETE FROM {model._meta.db_table}")


@pytest.mark.parametrize(
    "choice",
    [
        Choice(consumer="health.audit"),
        Choice(event=Pattern("page.viewed")),
        Choice(event=Pattern("page.*")),
        Choice(error="KEYERROR: it"),
        Choice(error="100%"),
        Choice(since=50.0),
        Choice(consumer="health.audit", error="keyerror"),
    ],
)
def test_a_choice_leaves_out_what_does_not_fit(choice: Choice) -> None:
    bury("ValueError: 100 of it", failed=1.0)
    wanted = bury("KeyError: it, 100%", consumer="health.audit", type="page.viewed")

    assert [row.pk for row in choice.rows(ALIAS)] == [wanted.pk]


def test_faults_are_counted_and_the_most_frequent_is_first() -> None:
    bury("KeyError: 9")
    for number in range(3):
        last = bury(f"ValueError: no {number}", failed=100.0 + number)

    first, second = by_fault(Choice().rows(ALIAS))

    assert (first.fault, first.count, first.example) == ("ValueError: no #", 3, last.pk)
    assert (first.first, first.last) == (100.0, 102.0)
    assert (second.fault, second.count) == ("KeyError: #", 1)


def test_a_replayed_one_is_ready_for_its_consumer_with_its_event() -> None:
    burying.record("health.statistics", using=ALIAS)
    letter, other = bury(), bury(consumer="health.gone")

    assert replay(ALIAS, [letter.pk, other.pk, 0]) == [letter.pk]

    (due,) = DueDelivery.objects.using(ALIAS)
    (event,) = HistoryEvent.objects.using(ALIAS)
    assert (due.event_id, due.attempt) == (letter.event_id, 1)
    assert (event.pk, bytes(event.envelope)) == (letter.event_id, letter.envelope)
    assert [row.pk for row in StoredDeadLetter.objects.using(ALIAS)] == [other.pk]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_replayed_one_has_its_priority_and_its_place_in_its_key(
    ordered: bool,
) -> None:
    burying.record("health.statistics", using=ALIAS, ordered=ordered)
    letter = bury(priority=7, key="patient 1")

    replay(ALIAS, [letter.pk])

    (due,) = DueDelivery.objects.using(ALIAS)
    key_hash = hash_of_key("patient 1") if ordered else None
    assert (due.precedence, due.key_hash) == (2, key_hash)


def test_one_that_cannot_be_decoded_is_replayed_as_it_is() -> None:
    burying.record("health.statistics", using=ALIAS, ordered=True)
    letter = bury(envelope=b"\xff")

    assert replay(ALIAS, [letter.pk]) == [letter.pk]

    (event,) = HistoryEvent.objects.using(ALIAS)
    assert bytes(event.envelope) == b"\xff"


def test_each_is_replayed_once_by_two_at_a_time() -> None:
    burying.record("health.statistics", using=ALIAS)
    ids = [bury().pk for _ in range(20)]
    done: list[int] = []

    def run() -> None:
        for id_ in ids:
            done.extend(replay(ALIAS, [id_]))
        connections[ALIAS].close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == ids
    assert DueDelivery.objects.using(ALIAS).count() == len(ids)


def test_the_event_of_one_that_is_replayed_is_not_pruned_meanwhile(
    vendor: str,
) -> None:
    burying.record("health.statistics", using=ALIAS)
    letter = bury()
    execute(
        "INSERT INTO gomq_event (id, type, made, envelope) VALUES (%s, %s, 0.0, %s)",
        *(letter.event_id, letter.type, bytes(letter.envelope)),
    )
    replaying, pruning = OwnConnection(ALIAS, 30.0), OwnConnection(ALIAS, 30.0)
    dialect = replaying.dialect
    prune = partial(upkeep.prune, dialect=dialect, seconds=1.0)
    pruner = threading.Thread(target=pruning.run, args=(prune,))

    def replay_slowly(cursor: CursorWrapper) -> None:
        dead_letters.replay(cursor, dialect, [letter.pk])
        pruner.start()
        if vendor != "sqlite":  # where it waits for us
            pruner.join(LONG)

    replaying.run(replay_slowly)
    pruner.join(LONG)

    assert DueDelivery.objects.using(ALIAS).count() == 1
    assert HistoryEvent.objects.using(ALIAS).count() == 1
    for connection in (replaying, pruning):
        connection.close()


def test_what_is_buried_meanwhile_is_left_out() -> None:
    ids = [bury().pk for _ in range(3)]
    rows = Choice().rows(ALIAS)

    seen = []
    for several in steps(rows, most=10):
        bury()
        seen += several

    assert seen == ids


def test_discarded_ones_are_gone() -> None:
    letters = [bury() for _ in range(2)]

    assert discard(ALIAS, [letters[0].pk, 0]) == [letters[0].pk]

    assert discard(ALIAS, [letters[0].pk]) == []
    assert [row.pk for row in StoredDeadLetter.objects.using(ALIAS)] == [letters[1].pk]
