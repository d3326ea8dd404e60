"""Processes beat while they live; the living end the dead, and say what was left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database import rows, upkeep
from django_gomq.backends.database.connection import DIALECTS, OwnConnection
from django_gomq.backends.database.processes import ENDED_SECONDS
from django_gomq.backends.database.rows import RUNNING, first_lease
from django_gomq.testing.conformance.site import CONSUMER, EVENT, Notes, Process, Site
from tests.backends.databases import ALIAS, LEASE, execute
from tests.bus.waiting import LONG, wait_until

LOGGER = "gomq.database"


def heartbeat() -> float:
    """Return when the process that was recorded first has beaten last."""
    ((moment,),) = execute("SELECT heartbeat FROM gomq_process ORDER BY id LIMIT 1")
    assert isinstance(moment, float)
    return moment


def wait_for_beats(count: int) -> None:
    for _ in range(count):
        before = heartbeat()
        wait_until(lambda: heartbeat() > before)  # noqa: B023


@contextmanager
def held_up(process: Process, name: str) -> Iterator[Event]:
    """Let one method of the backend not return before the end; yield when it began."""
    began, ending = Event(), Event()

    def wait(called: str, given: Any) -> None:
        if called == name and (name != "fetch" or given[0]):
            began.set()
            ending.wait(LONG)

    process.calls.before = wait
    try:
        yield began
    finally:
        process.calls.before = lambda name, given: None
        ending.set()


def test_nothing_is_claimed_for_a_process_whose_record_was_not_committed(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lost = OwnConnection.run, list[int]()

    def lose_record(self: OwnConnection, step: Any, *patience: Any) -> Any:
        def lose(cursor: CursorWrapper) -> Any:
            answer = step(cursor)
            cursor.execute("SELECT id FROM gomq_process")
            if not lost and (found := cursor.fetchall()):
                lost.append(found[0][0])
                raise OperationalError("the server closed the connection unexpectedly")
            return answer

        return run(self, lose, *patience)

    monkeypatch.setattr(OwnConnection, "run", lose_record)
    process, gate = processes.process(), processes.gate()
    process.consume(gate)

    process.send(1)

    wait_until(lambda: gate.entered)
    assert lost
    ((number,),) = execute("SELECT id FROM gomq_process")
    ((lease,),) = execute("SELECT lease FROM gomq_delivery")
    assert first_lease(number) <= lease < first_lease(number + 1)
    wait_for_beats(2)


@pytest.mark.parametrize("name", ["fetch", "settle", "stats"])
def test_beats_go_on_while_a_call_is_slow(processes: Site, name: str) -> None:
    process = processes.process()
    process.consume(Notes())
    wait_until(lambda: execute("SELECT 1 FROM gomq_process"))

    with held_up(process, name) as began:
        process.send(1)
        assert began.wait(LONG)

        wait_for_beats(3)

    process.wait_until_quiet()


def test_beats_go_on_through_a_drain(processes: Site) -> None:
    process, gate = processes.process(), processes.gate()
    process.consume(gate)
    process.send(1)
    wait_until(lambda: gate.entered)
    closing = processes.in_thread(process.close)
    wait_until(lambda: process.broker.is_closed)

    wait_for_beats(3)

    gate.open()
    closing.join(LONG)
    living = "SELECT 1 FROM gomq_process WHERE ended IS NULL"
    wait_until(lambda: execute(living) == [])


def test_who_finds_a_process_dead_says_once_what_it_left(
    processes: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    victim, gate = processes.process(), processes.gate()
    victim.consume(gate, name="suite.other", starts=False)
    victim.consume(gate)
    victim.send(1, 2, 3)
    held = f"SELECT count(*) FROM gomq_delivery WHERE state = {RUNNING}"
    wait_until(lambda: execute(held) == [(6,)])
    ((pid, host),) = execute("SELECT pid, host FROM gomq_process")
    victim.cut()
    processes.let_lease_end()

    for _ in range(2):
        process = processes.process()
        for name in ("suite.other", CONSUMER):
            process.broker.consume(["suite.happened"], Notes(), name=name)
        process.broker.setup()
        process.broker.start()

    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])

    def lines() -> list[logging.LogRecord]:
        """Return what was said of the victim: a busy machine may kill others."""
        ours = (record for record in caplog.records if record.name == LOGGER)
        return [record for record in ours if " 6 unfinished" in record.getMessage()]

    wait_until(lines)
    (line,) = lines()
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        f"Process {pid} of host {host} ended with 6 unfinished deliveries: "
        f"suite.other 3, {CONSUMER} 3"
    )
    assert line.__dict__["gomq_left"] == {"suite.other": 3, CONSUMER: 3}
    assert (line.__dict__["gomq_pid"], line.__dict__["gomq_host"]) == (pid, host)


def test_an_idle_process_that_died_is_told_of_too(
    processes: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    victim = processes.process()
    victim.consume(Notes())
    wait_until(lambda: execute("SELECT 1 FROM gomq_process"))
    victim.cut()
    processes.let_lease_end()

    processes.process().consume(Notes())

    told = "ended with 0 unfinished deliveries: none"
    wait_until(lambda: told in caplog.text)


def test_a_process_that_was_held_to_be_dead_says_so_and_goes_on(
    processes: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    one, gate = processes.process(), processes.gate()
    one.consume(gate)
    one.send(1, 2)
    wait_until(lambda: one.stats().depth + one.stats().in_flight == 2)
    one.cut()
    processes.let_lease_end()
    two, notes = processes.process(), Notes()
    two.consume(notes)
    wait_until(lambda: sorted(notes.numbers) == [1, 2])

    one.mend()

    wait_until(lambda: one.stats().depth == 0)  # withdrawn, though not started
    gate.open()
    one.wait_until_quiet()
    wait_until(lambda: f"did not beat for {LEASE} s" in caplog.text)
    assert one.stats().succeeded == 0
    two.close()
    one.send(3)
    wait_until(lambda: one.stats().succeeded == 1)


def test_a_wrong_clock_of_a_process_changes_nothing(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, gate = processes.process(), processes.gate()
    one.consume(gate)
    one.send(1)
    wait_until(lambda: gate.entered)
    monkeypatch.setattr("time.time", lambda: 4e9)
    two, notes = processes.process(), Notes()
    two.consume(notes, name="suite.late")
    two.broker.consume(["suite.happened"], notes, name=CONSUMER)

    two.send(2, delay=0.1)
    wait_until(lambda: 2 in notes.numbers or two.stats("suite.late").succeeded)
    wait_for_beats(6)  # longer than a lease

    assert 1 not in notes.numbers
    gate.open()
    wait_until(lambda: (1, 1) in gate.handled)
    wait_until(lambda: one.stats().succeeded >= 1)
    assert one.stats().handed_back == 0


@pytest.fixture
def ended(processes: Site) -> dict[str, int]:
    """Record processes that ended, or did not; return their numbers."""
    now = DIALECTS[connections[ALIAS].vendor].now
    ages = {
        "long ago": ENDED_SECONDS + 60,
        "holds": ENDED_SECONDS + 60,
        "lately": ENDED_SECONDS - 60,
    }
    for owner, age in ages.items():
        execute(
            "INSERT INTO gomq_process "
            "(host, pid, owner, consumers, started, heartbeat, ended) "
            f"VALUES ('h', 1, %s, '[]', 0, 0, {now} - %s)",
            owner,
            age,
        )
    rows = execute("SELECT id, owner FROM gomq_process")
    return {owner: number for number, owner in rows}


def owners() -> set[str]:
    rows = execute("SELECT owner FROM gomq_process WHERE host = 'h'")
    return {owner for (owner,) in rows}


def test_processes_that_ended_long_ago_are_forgotten_once_nothing_is_theirs(
    processes: Site, ended: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PRUNING_PAUSE", 0.0)
    execute(
        "INSERT INTO gomq_delivery "
        "(event_id, consumer_id, precedence, state, lease, attempt, deaths) "
        "VALUES (-1, -1, 4, 1, %s, 1, 0)",
        first_lease(ended["holds"]) + 1,
    )
    worker = processes.process()
    worker.consume(Notes(), starts=False)

    worker.backend.fetch(())

    assert owners() == {"holds", "lately"}
    execute("DELETE FROM gomq_delivery")
    worker.backend.fetch(())
    assert owners() == {"lately"}


def test_a_reader_that_is_late_begins_no_beats_of_a_process_that_has_left(
    processes: Site,
) -> None:
    process = processes.process()
    process.consume(Notes())
    wait_until(lambda: execute("SELECT 1 FROM gomq_process"))
    backend = process.backend
    process.close()
    before = set(threading.enumerate())

    backend.fetch([])

    begun = set(threading.enumerate()) - before
    assert not [thread for thread in begun if "pulse" in thread.name]
    backend.close(LONG)


def test_what_a_process_claims_after_many_claims_is_freed_by_no_end_of_another(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_CLAIM_BITS", 2)  # instead of 24
    process, other, gate = processes.process(), processes.process(), processes.gate(9)
    process.consume(gate, ordered_by_key=True)
    wait_until(lambda: process.calls.done("fetch"))
    other.consume(Notes(), EVENT, name="suite.other")
    wait_until(lambda: other.calls.done("fetch"))
    other.close()

    for number in range(10):
        process.send(number, key="k")
        wait_until(lambda: number in [entered for entered, _ in gate.entered])  # noqa: B023

    backend: Any = process.backend

    def is_ours() -> bool:
        first, end = backend._process.leases
        held = execute("SELECT lease FROM gomq_delivery WHERE state = 1")
        return any(first <= lease < end for (lease,) in held)

    wait_until(is_ours)
    gate.open()
