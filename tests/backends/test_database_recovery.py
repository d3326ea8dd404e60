"""What a dead process held goes to the living, once, and what killed it is given up."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database import DatabaseBackend, settling
from django_gomq.backends.database.connection import DIALECTS, OwnConnection
from django_gomq.backends.database.processes import CUT_SECONDS
from django_gomq.backends.database.rows import SCHEDULED
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.site import (
    EVENT,
    Notes,
    Site,
    wait_until,
)
from tests.backends.databases import ALIAS, execute


def test_what_a_dead_process_held_is_handled_once_beside_what_is_ready(
    processes: Site,
) -> None:
    one, gate = processes.process(), processes.gate()
    one.consume(gate, ordered_by_key=True)
    one.send(1, key="first")
    wait_until(lambda: gate.entered)
    one.cut()
    one.send_many([2, 3, 4], key="second")
    # Dispatched, and not yet claimed by anybody.
    other = processes.process()
    other.consume(Notes(), EVENT, name="suite.dispatcher")
    wait_until(lambda: not execute("SELECT 1 FROM gomq_outbox"))
    two, notes = processes.process(), Notes()
    two.broker.consume([EVENT], notes, name="suite.counter", ordered_by_key=True)
    two.broker.setup()

    processes.let_lease_end()
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery WHERE state = 3"))
    two.broker.start()

    wait_until(lambda: {1, 2, 3, 4} <= set(notes.numbers))
    two.wait_until_quiet()
    assert sorted(notes.numbers) == [1, 2, 3, 4]


def test_what_was_taken_by_a_commit_without_an_answer_is_freed(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lost = OwnConnection.run, []

    def lose_answer(self: OwnConnection, step: Any) -> Any:
        answer = run(self, step)
        if isinstance(answer, dict) and answer and not lost:
            lost.append(answer)
            raise OperationalError("the server closed the connection unexpectedly")
        return answer

    monkeypatch.setattr(OwnConnection, "run", lose_answer)
    process, notes = processes.process(), Notes()
    process.consume(notes)

    process.send(1)

    wait_until(lambda: notes.numbers == [1])
    assert lost
    process.wait_until_quiet()
    assert notes.handled == [(1, 1)]


def test_attempts_of_an_ordered_consumer_survive_the_end_of_its_process(
    processes: Site,
) -> None:
    def fail(message: object) -> None:
        raise ValueError

    retry = Retry(attempts=8, min_delay=0.01, max_delay=0.01)
    patient = Retry(attempts=8, min_delay=3600, max_delay=3600)
    one, first = processes.process(), Notes(fail)
    one.consume(first, ordered_by_key=True, retry=patient)
    one.send(1, key="k")
    wait_until(lambda: one.stats().scheduled == 1)
    one.close()
    two, second = processes.process(), Notes(fail)

    two.consume(second, ordered_by_key=True, retry=retry)

    wait_until(two.broker.dead_letters)
    assert first.handled == [(1, 1)]
    assert [attempt for _, attempt in second.handled] == [2, 3, 4, 5, 6, 7, 8]


def test_what_could_not_be_released_is_released_later(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, release = DatabaseBackend.fetch, settling.release
    fetched: list[Delivery] = []
    failed: list[int] = []

    def note(self: DatabaseBackend, wants: Any) -> Any:
        found = fetch(self, wants)
        fetched.extend(delivery for each in found for delivery in each.deliveries)
        return found

    def fail_once(cursor: Any, dialect: Any, deliveries: Any) -> None:
        if not failed:
            failed.append(len(deliveries))
            raise OperationalError("the server closed the connection unexpectedly")
        release(cursor, dialect, deliveries)

    monkeypatch.setattr(DatabaseBackend, "fetch", note)
    monkeypatch.setattr(settling, "release", fail_once)
    process, gate = processes.process(), processes.gate()
    process.consume(gate, concurrency=2)
    process.send(1)
    wait_until(lambda: gate.entered)

    with pytest.raises(OperationalError):
        process.backend.release(fetched)

    wait_until(lambda: gate.entered == [(1, 1), (1, 1)])
    assert failed == [1]


def test_what_a_stop_leaves_in_a_handler_is_no_suspect_and_waits_for_the_end(
    processes: Site,
) -> None:
    one, gate = processes.process(), processes.gate()
    one.consume(gate)
    one.send(1)
    wait_until(lambda: gate.entered)
    ((before,),) = execute(f"SELECT {DIALECTS[connections[ALIAS].vendor].now}")

    one.close(0)

    ((state, deaths, lease, attempt, due),) = execute(
        "SELECT state, deaths, lease, attempt, due FROM gomq_delivery"
    )
    assert (state, deaths, lease, attempt) == (SCHEDULED, 0, None, 1)
    ((ended,),) = execute("SELECT ended FROM gomq_process WHERE ended IS NOT NULL")
    rounding = 0.01
    assert before - rounding <= due - CUT_SECONDS <= ended + rounding
    two, notes = processes.process(), Notes()
    two.consume(notes)
    wait_until(lambda: notes.handled == [(1, 1)])


QUESTIONS = {
    "postgresql": "SHOW idle_in_transaction_session_timeout",
    "mariadb": "SELECT @@idle_transaction_timeout",
}


def test_a_server_ends_the_transaction_of_a_process_that_says_nothing_more(
    vendor: str,
) -> None:
    if vendor not in QUESTIONS:
        pytest.skip("the locks of SQLite end with the machine")
    connection = OwnConnection(ALIAS, 30.0)

    def ask(cursor: CursorWrapper) -> object:
        cursor.execute(QUESTIONS[vendor])
        return cursor.fetchone()[0]

    assert connection.run(ask) in ("30s", 30)
    connection.close()


def test_a_step_that_ends_in_deadlocks_is_run_again(vendor: str) -> None:
    connection, tries = OwnConnection(ALIAS, 30.0), list[int]()

    def step(cursor: Any) -> int:
        tries.append(1)
        if len(tries) < 4:
            raise OperationalError(1213, "Deadlock found when trying to get lock")
        return len(tries)

    assert connection.run(step) == 4
    connection.close()
