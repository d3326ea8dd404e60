"""What a server is said to hold is what stands in its tables, up to a bound."""

from __future__ import annotations

import pytest

from django_gomq.backends.database import sampling
from django_gomq.bus.stats import ServerStats
from django_gomq.testing.conformance.site import CONSUMER, Notes, Process, Site
from tests.backends.databases import execute
from tests.bus.waiting import wait_until


def of(process: Process, consumer: str = CONSUMER) -> ServerStats:
    return process.broker.backend.stats().consumers[consumer]


def recorded(site: Site) -> Process:
    """Return a process in which nothing runs, of a site with one consumer."""
    process = site.process(may_start=lambda: False)
    process.consume(Notes(), starts=False)
    process.broker.setup()
    return process


def make_older(table: str, seconds: float, column: str = "made") -> None:
    execute(f"UPDATE {table} SET {column} = {column} - %s", seconds)


def dispatch_all(site: Site) -> None:
    """Have the outbox emptied, and nothing handled."""
    worker = site.process()
    worker.consume(Notes(), name="suite.other")
    wait_until(lambda: execute("SELECT 1 FROM gomq_outbox") == [])
    worker.close()


def test_what_stands_in_the_outbox_waits_for_its_consumers(processes: Site) -> None:
    process = recorded(processes)
    process.send(1, 2)
    process.send(3, delay=3600.0)
    make_older("gomq_outbox", 30.0)

    numbers, sample = of(process), process.broker.backend.stats()

    assert (numbers.ready, numbers.scheduled, numbers.dead) == (2, 1, 0)
    assert numbers.oldest_age is not None
    assert 30.0 <= numbers.oldest_age < 90.0
    assert sample.outbox_depth == 3
    assert sample.outbox_oldest_age is not None
    assert 30.0 <= sample.outbox_oldest_age < 90.0


def test_what_was_never_delayed_is_as_old_as_its_event(processes: Site) -> None:
    process = recorded(processes)
    process.send(1, 2)
    dispatch_all(processes)
    make_older("gomq_event", 600.0)

    numbers = of(process)

    assert (numbers.ready, numbers.scheduled) == (2, 0)
    assert numbers.oldest_age is not None
    assert 600.0 <= numbers.oldest_age < 660.0
    assert process.broker.backend.stats().outbox_depth == 0


def test_what_was_due_again_waits_from_then_on(processes: Site) -> None:
    process = recorded(processes)
    process.send(1)
    dispatch_all(processes)
    make_older("gomq_event", 6000.0)
    ((made,),) = execute("SELECT made FROM gomq_event")
    execute("UPDATE gomq_delivery SET due = %s", made + 5900.0)

    age = of(process).oldest_age

    assert age is not None
    assert 100.0 <= age < 160.0


def test_what_a_handler_has_is_held(processes: Site) -> None:
    worker, gate = processes.process(), processes.gate()
    worker.consume(gate, concurrency=1)

    worker.send(1)

    wait_until(lambda: gate.entered)
    assert (of(worker).held, of(worker).ready) == (1, 0)
    gate.open()
    wait_until(lambda: of(worker).held == 0)


def test_no_more_than_a_bound_is_counted(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = recorded(processes)
    process.send(*range(5))
    dispatch_all(processes)
    monkeypatch.setattr(sampling, "MAX_COUNT", 3)

    assert of(process).ready == 3


def test_who_beats_works_on_its_consumers(processes: Site) -> None:
    process = processes.process()
    process.consume(Notes())
    process.broker.consume(["suite.happened"], Notes(), name="suite.later")
    process.broker.setup()

    wait_until(lambda: of(process).workers == of(process, "suite.later").workers == 1)

    (row,) = process.broker.backend.stats().processes or ()
    assert not row.is_late
    other = processes.process()
    other.consume(Notes())
    wait_until(lambda: of(process).workers == 2)
    assert of(process, "suite.later").workers == 1


def test_who_does_not_beat_works_on_nothing(processes: Site) -> None:
    victim = processes.process()
    victim.consume(Notes())
    wait_until(lambda: of(victim).workers == 1)
    victim.cut()
    processes.let_lease_end()
    process = recorded(processes)

    assert of(process).workers == 0
    (row,) = process.broker.backend.stats().processes or ()
    assert row.is_late


def test_who_finds_a_process_dead_counts_it(processes: Site) -> None:
    victim = processes.process()
    victim.consume(Notes())
    wait_until(lambda: of(victim).workers == 1)
    victim.cut()
    processes.let_lease_end()

    finder = processes.process()
    finder.consume(Notes())

    wait_until(lambda: finder.broker.backend.stats().found_dead == 1)
    processes.process()
    assert len(finder.broker.backend.stats().processes or ()) == 1
