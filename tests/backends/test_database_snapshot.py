"""What a worker reads of the outbox while somebody holds a snapshot of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg
import pytest
from django.db import connections, transaction

from django_gomq.backends.database import outbox
from django_gomq.backends.database.connection import DIALECTS
from django_gomq.backends.database.outbox import Position
from django_gomq.bus.message import Message
from django_gomq.testing.conformance.site import (
    EVENT,
    LONG,
    Notes,
    Site,
    wait_until,
)
from tests.backends.databases import ALIAS, execute

EVENTS = 40_000
DIALECT = DIALECTS["postgresql"]


@pytest.fixture(autouse=True)
def _only_postgresql(vendor: str) -> None:
    if vendor != "postgresql":
        pytest.skip("PostgreSQL alone keeps deleted rows where a look passes")


@contextmanager
def held_snapshot() -> Iterator[None]:
    reached = connections.databases[ALIAS]
    with psycopg.connect(
        host=reached["HOST"],
        port=reached["PORT"],
        user=reached["USER"],
        dbname=reached["NAME"],
    ) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM gomq_outbox")
        yield


def pages_of(position: Position) -> int:
    """Return how many pages it takes to find that nothing is there."""
    words = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
    ((found,),) = execute(f"{words} {position.next_statement(DIALECT, 100)}")
    plan = found[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def empty(position: Position) -> None:
    """Take events from there, as a dispatch does, until it finds none."""
    with connections[ALIAS].cursor() as cursor:
        while True:
            cursor.execute(position.next_statement(DIALECT, 500))
            rows = position.advance(cursor.fetchall(), 500)
            if not rows:
                return
            cursor.execute(
                "DELETE FROM gomq_outbox WHERE id = ANY(%s)",
                ([row[0] for row in rows],),
            )


def test_a_look_reads_no_more_the_longer_a_snapshot_is_held() -> None:
    execute("DELETE FROM gomq_outbox")
    position = Position()
    with held_snapshot():
        execute(
            "INSERT INTO gomq_outbox (type, precedence, delay, made, envelope) "
            "SELECT 'suite.event', 4, 0, 0, '' FROM generate_series(1, %s)",
            EVENTS,
        )
        empty(position)

        whole, rest = pages_of(Position()), pages_of(position)
        assert whole > 4 * rest


def test_what_commits_far_below_is_found_too(processes: Site) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)
    written, go_on = Event(), Event()

    def commit_late() -> None:
        with transaction.atomic(using=ALIAS):
            process.backend.publish_in_transaction([Message(EVENT, b"-1")], ALIAS)
            written.set()
            go_on.wait(LONG)
        connections[ALIAS].close()

    late = Thread(target=commit_late)
    late.start()
    assert written.wait(LONG)
    process.send_many(range(1000))
    wait_until(lambda: len(notes.numbers) == 1000)

    go_on.set()

    late.join(LONG)
    wait_until(lambda: -1 in notes.numbers)


def test_every_priority_goes_on_where_a_batch_ended(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PAUSE", 3600.0)  # no look from the start finds them
    sender = processes.process(may_start=lambda: False)
    for priority in range(3):
        sender.send_many(range(priority * 800, priority * 800 + 800), priority=priority)

    process, notes = processes.process(), Notes()
    process.consume(notes)

    wait_until(lambda: sorted(notes.numbers) == list(range(2400)))
