"""Workers that are killed, stopped and many: real processes on each database."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from django.db import connections

from django_gomq.testing.conformance.site import Site, wait_until
from tests.backends.databases import ALIAS, execute
from tests.backends.workers import SHORT_LEASE, THREADS
from tests.backends.workers.site import WorkerSite

PREFETCHED = 500
HELD = "SELECT count(*) FROM gomq_delivery WHERE state = 1"
MAX_WORKERS = 10


@pytest.fixture
def site(processes: Site, tmp_path: Path) -> WorkerSite:
    site = WorkerSite(tmp_path, processes)
    site.set_up()
    return site


def warm_up(site: WorkerSite) -> None:
    """Have a worker find out that it is fast, so that it takes many at once."""
    numbers = range(-1, -50, -1)
    site.emit("work.done", *({"number": number} for number in numbers))
    wait_until(lambda: set(numbers) <= set(site.numbers("done")))


def test_a_poison_message_among_500_costs_its_neighbours_nothing(
    site: WorkerSite,
) -> None:
    poison = PREFETCHED // 2
    events = [{"number": number} for number in range(PREFETCHED)]
    events[poison]["kills"] = True
    with site.worker() as worker:
        warm_up(site)
        site.emit("work.done", *events)
        wait_until(lambda: worker.has_ended)
        worker.outlive()
    assert execute(HELD)[0][0] > 1  # it has neighbours, on a fast machine many

    deaths = 1
    for _ in range(MAX_WORKERS):
        with site.worker() as worker:
            wait_until(
                lambda: (
                    worker.has_ended
                    or (
                        not execute("SELECT 1 FROM gomq_outbox LIMIT 1")
                        and not execute("SELECT 1 FROM gomq_delivery LIMIT 1")
                    )
                )
            )
            if not worker.has_ended:
                worker.drain()
                break
            deaths += 1
            worker.outlive()

    letters = execute("SELECT error_type, attempt FROM gomq_dead_letter")
    assert (letters, deaths) == ([("DeliveryLimitError", 1)], 4)
    assert site.numbers("begun").count(poison) == deaths
    assert set(range(PREFETCHED)) - set(site.numbers("done")) == {poison}
    assert {note.attempt for note in site.notes} == {1}


def test_a_process_that_was_stopped_for_longer_than_its_lease_loses_it_and_says_so(
    site: WorkerSite,
) -> None:
    site.lease = SHORT_LEASE
    numbers = range(20)
    with site.worker() as stopped:
        warm_up(site)
        site.emit("work.done", *({"number": nth, "gate": "open"} for nth in numbers))
        wait_until(lambda: 0 in site.numbers("begun") and execute(HELD)[0][0] > 1)
        stopped.stop()
        site.touch("open")
        with site.worker() as other:
            site.wait_until_done()
            other.drain()

        stopped.go_on()

        wait_until(lambda: "did not beat for" in stopped.log)
        wait_until(lambda: Counter(site.numbers("done"))[0] == 2)
        site.emit("work.done", {"number": 20})
        site.wait_until_done()
        stopped.drain()
    done = Counter(number for number in site.numbers("done") if number >= 0)
    twice = {number for number in site.numbers_of(stopped) if number in numbers}
    assert len(twice) <= THREADS  # it began no other once it went on
    assert done == Counter([*numbers, *twice, 20])
    assert execute("SELECT 1 FROM gomq_dead_letter") == []


def test_what_was_committed_before_a_kill_is_not_done_again(site: WorkerSite) -> None:
    execute("CREATE TABLE effect (number integer)")
    try:
        site.emit("work.once", *({"number": number} for number in range(10)))
        with site.worker() as victim:
            wait_until(lambda: victim.has_ended)
            victim.outlive()
        with site.worker() as other:
            site.wait_until_done()
            other.drain()
        effects = [row[0] for row in execute("SELECT number FROM effect")]
    finally:
        connections[ALIAS].close()
        execute("DROP TABLE effect")

    assert sorted(effects) == list(range(10))
    assert Counter(site.numbers("begun")) == Counter(range(10))
    assert execute("SELECT 1 FROM gomq_dead_letter") == []


def test_eight_processes_share_the_work_without_an_error(
    vendor: str, site: WorkerSite
) -> None:
    if vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time: eight only wait for one another")
    with site.worker("--processes", "8") as worker:
        for start in range(0, 2000, 100):
            numbers = range(start, start + 100)
            site.emit("work.done", *({"number": number} for number in numbers))
        site.wait_until_done()
        worker.drain()

    assert Counter(site.numbers("done")) == Counter(range(2000))
    assert len({note.pid for note in site.notes}) > 1
    for word in ("Deadlock", "Traceback", "ERROR"):  # not 1213: a pid may hold it
        assert word not in worker.log
