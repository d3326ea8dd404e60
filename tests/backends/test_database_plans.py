"""One index serves what a claim looks for, and the order in which it takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from django.db import connections

from django_gomq.backends.database import claims, upkeep
from django_gomq.backends.database.connection import DIALECTS, OwnConnection
from django_gomq.testing.conformance.site import LONG, Notes, Site, wait_until
from tests.backends.databases import ALIAS, execute

ROWS = 3000
EVENTS = 10_000


@pytest.fixture
def rows(vendor: str) -> Iterator[str]:
    with connections[ALIAS].cursor() as cursor:
        cursor.executemany(
            "INSERT INTO gomq_delivery (event_id, consumer_id, precedence, state, "
            "attempt, deaths, key_hash) VALUES (%s, %s, 4, %s, 1, 0, %s)",
            [(n, n % 3, n % 4, n % 50) for n in range(ROWS)],
        )
    execute("ANALYZE TABLE gomq_delivery" if vendor == "mariadb" else "ANALYZE")
    yield vendor
    execute("DELETE FROM gomq_delivery")


@contextmanager
def planned_by_index(vendor: str) -> Iterator[None]:
    """Leave PostgreSQL no choice, as tables that are empty now and then do not."""
    if vendor == "postgresql":
        execute("SET enable_seqscan = off")
    yield
    if vendor == "postgresql":
        execute("RESET enable_seqscan")


def plan(vendor: str, statement: str, *values: Any) -> str:
    words = "EXPLAIN QUERY PLAN" if vendor == "sqlite" else "EXPLAIN"
    with planned_by_index(vendor):
        return "\n".join(str(row) for row in execute(f"{words} {statement}", *values))


LOCK = {"sqlite": "", "postgresql": "FOR UPDATE SKIP LOCKED"}
SORTS = ("Sort", "filesort", "USE TEMP B-TREE")


CLAIM = """
SELECT event_id FROM gomq_delivery WHERE consumer_id = 1 AND state = 0
ORDER BY precedence, event_id LIMIT 10"""
PROMOTE = """
SELECT event_id, consumer_id FROM gomq_delivery
WHERE state = 2 AND due <= (SELECT 1.0) ORDER BY due LIMIT 10"""
RESCUE = """
SELECT event_id, consumer_id FROM gomq_delivery
WHERE lease >= 1000 AND lease < 2000 AND state = 1"""


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (CLAIM, "gomq_delivery_next"),
        (PROMOTE, "gomq_delivery_due"),
        (RESCUE, "gomq_delivery_lease"),
    ],
    ids=["claim", "promote", "rescue"],
)
def test_the_index_serves_filter_and_order(
    rows: str, statement: str, index: str
) -> None:
    lock = LOCK.get(rows, "FOR UPDATE SKIP LOCKED")

    found = plan(rows, f"{statement} {lock}")

    assert index in found
    assert not any(word in found for word in SORTS), found


def test_a_look_goes_past_nothing_that_is_not_due(rows: str) -> None:
    if rows != "postgresql":
        pytest.skip("PostgreSQL alone says how many rows a statement went past")
    execute("UPDATE gomq_delivery SET due = 4e9 WHERE state = 2")
    statement, values = claims.look_statement(DIALECTS[rows], "1", [1])

    found = "\n".join(
        str(row) for row in execute(f"EXPLAIN ANALYZE {statement}", *values)
    )

    assert "gomq_delivery_due" in found
    assert "Removed by Filter" not in found


class Explaining:
    """A cursor that notes how the server goes about each statement."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.plans: list[str] = []

    def execute(self, statement: str, values: Any = ()) -> None:
        self._cursor.execute(f"EXPLAIN ANALYZE {statement}", values)
        self.plans.append("\n".join(row[0] for row in self._cursor.fetchall()))

    def fetchall(self) -> list[Any]:
        return []


@pytest.fixture
def young_history(vendor: str) -> Iterator[str]:
    if vendor != "postgresql":
        pytest.skip("PostgreSQL alone says how many rows a statement went past")
    execute(
        "INSERT INTO gomq_event (id, type, made, envelope) "
        "SELECT number, 'a.b', extract(epoch FROM now()), '' "
        "FROM generate_series(1, %s) number",
        EVENTS,
    )
    yield vendor
    execute("DELETE FROM gomq_event")


def test_pruning_goes_past_no_history_that_is_young(young_history: str) -> None:
    def explain(cursor: Any) -> list[str]:
        explaining: Any = Explaining(cursor)
        upkeep.prune(explaining, DIALECTS[young_history], 3600.0)
        return list(explaining.plans)

    with closing(OwnConnection(ALIAS, LONG)) as connection:
        (plan,) = connection.run(explain)

    assert "gomq_event_made" in plan
    assert "Removed by Filter" not in plan


def read_of_the_outbox() -> int:
    """Return how many of its rows the server has read for statements that ended."""
    ((by_table, by_index),) = execute(
        "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables "
        "WHERE relname = 'gomq_outbox'"
    )
    return int(by_table) + int(by_index)


def test_a_backlog_is_not_read_anew_for_each_batch(
    vendor: str, processes: Site
) -> None:
    if vendor != "postgresql":
        pytest.skip("PostgreSQL alone counts the rows that it reads")
    sender = processes.process(may_start=lambda: False)
    for start in range(0, EVENTS, 1000):
        sender.send_many(range(start, start + 1000))
    before = read_of_the_outbox()

    process, notes = processes.process(), Notes()
    process.consume(notes)
    wait_until(lambda: len(notes.numbers) == EVENTS)
    process.broker.close(timeout=10)

    # It counts a session in when that ends. Each row is read to be taken, copied,
    # delivered and deleted.
    wait_until(lambda: read_of_the_outbox() - before >= EVENTS)
    assert read_of_the_outbox() - before < 10 * EVENTS
