"""History is deleted as fast as it grows old, beside deliveries."""

from __future__ import annotations

import pytest
from django.db import connections, transaction

from django_gomq.backends.database import upkeep
from django_gomq.testing.conformance.site import EVENT, Notes, Site, wait_until
from tests.backends.databases import ALIAS, execute
from tests.backends.test_database_concurrency import Failures

OLD = 20_000


@pytest.fixture
def _old(processes: Site) -> None:
    with transaction.atomic(using=ALIAS), connections[ALIAS].cursor() as cursor:
        cursor.executemany(
            "INSERT INTO gomq_event (id, type, made, envelope) VALUES (%s, %s, %s, %s)",
            [(-number - 1, EVENT, float(number), b"{}") for number in range(OLD)],
        )


def left() -> int:
    ((count,),) = execute("SELECT count(*) FROM gomq_event WHERE id < 0")
    return int(count)


@pytest.mark.usefixtures("_old")
def test_what_is_old_goes_while_two_processes_work(processes: Site) -> None:
    failures, notes = Failures(), Notes()
    workers = [processes.process(hooks=[failures]) for _ in range(2)]
    for worker in workers:
        worker.consume(notes)
    number = 0

    while left():
        number += 1
        workers[0].send(number)
        wait_until(lambda: len(notes.numbers) == number)  # noqa: B023

    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    assert failures.errors == []
    assert sorted(notes.numbers) == list(range(1, number + 1))


@pytest.mark.usefixtures("_old")
def test_a_round_deletes_no_more_than_it_has_time_for(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONGEST_PRUNING", 0.0)
    monkeypatch.setattr(upkeep, "PRUNING_SHARE", 1.0)
    process = processes.process()
    process.consume(Notes(), starts=False)

    found = []
    while left():
        process.backend.fetch(())
        found.append(left())

    assert found == list(range(OLD - 1000, -1, -1000))
