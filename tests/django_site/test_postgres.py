from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from django_gomq import Message, Retry, consumer, emit, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.databases import (
    kill_other_backends,
    other_backends,
)
from tests.django_site.handlers import Undo, listen, wait_quiet
from tests.django_site.waiting import wait_until


@pytest.fixture(autouse=True)
def _keep_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a test takes between two messages."""
    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 3600.0)


def backend_pid(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
        return pid


@pytest.fixture
def pids(postgres_database: str, live_site: UseSite) -> list[int]:
    """The backends that served the handler of ``page.viewed``, one thread for all."""
    found: list[int] = []
    consumer("page.viewed", name="asks")(
        lambda message: found.append(backend_pid(postgres_database))
    )
    live_site(THREADS=1)
    return found


def emit_and_wait(event: str = "page.viewed") -> None:
    emit(event, strict=True)
    wait_quiet()


def test_a_backend_killed_between_two_messages_costs_neither(pids: list[int]) -> None:
    emit_and_wait()
    emit_and_wait()
    kill_other_backends()

    emit_and_wait()

    assert len(pids) == 3
    assert pids[0] == pids[1] != pids[2]
    assert get_broker().dead_letters() == []


def test_without_health_checks_an_error_costs_one_attempt(
    postgres_database: str, live_site: UseSite
) -> None:
    connections.databases[postgres_database]["CONN_HEALTH_CHECKS"] = False
    attempts: list[int] = []

    def ask(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        backend_pid(postgres_database)

    retry = Retry(attempts=3, min_delay=0.01, max_delay=0.01)
    consumer("page.viewed", name="asks", retry=retry)(ask)
    live_site(THREADS=1)
    emit_and_wait()
    kill_other_backends()

    emit_and_wait()

    assert attempts == [1, 1, 2]
    assert get_broker().dead_letters() == []


def test_a_backend_killed_inside_a_handler_costs_one_attempt(
    postgres_database: str, live_site: UseSite
) -> None:
    alias, attempts = postgres_database, []

    def ask(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        with transaction.atomic(using=alias):
            pid = backend_pid(alias)
            if message.attempt == 1:
                with connections[alias].cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
            Record.objects.using(alias).create(patient_id=message.attempt)

    consumer("page.viewed", name="asks", retry=Retry(min_delay=0.01))(ask)
    live_site(THREADS=1)

    emit_and_wait()
    emit_and_wait()

    rows = Record.objects.using(alias).values_list("patient_id", flat=True)
    assert attempts == [1, 2, 1, 2]
    assert list(rows) == [2, 2]


def test_an_async_handler_survives_a_killed_backend(
    postgres_database: str, live_site: UseSite
) -> None:
    counts: list[int] = []

    async def count(message: Message[Any]) -> None:
        counts.append(await Record.objects.using(postgres_database).acount())

    consumer("page.viewed", name="counts")(count)
    live_site()
    emit_and_wait()
    kill_other_backends()

    emit_and_wait()

    assert counts == [0, 0]


def test_a_thread_that_runs_idle_gives_its_connection_back(
    postgres_database: str, live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 0.05)
    pids: list[int] = []
    consumer("page.viewed", name="asks")(
        lambda message: pids.append(backend_pid(postgres_database))
    )
    live_site(THREADS=1)

    emit_and_wait()
    wait_until(lambda: not other_backends(), "idle threads")
    emit_and_wait()

    assert len(set(pids)) == 2


def test_a_stopped_thread_gives_its_connection_back(pids: list[int]) -> None:
    from django_gomq import site

    emit_and_wait()
    busy = other_backends()

    site.close()

    wait_until(lambda: not other_backends(), "stopped threads")
    assert busy == pids


def test_savepoints_cut_events_back(postgres_database: str, live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site()

    with transaction.atomic(using=postgres_database):
        emit("page.viewed", 1)
        with pytest.raises(Undo), transaction.atomic(using=postgres_database):
            lost = emit("page.viewed", 2)
            with transaction.atomic(using=postgres_database):
                emit("page.viewed", 3)
            raise Undo
        with transaction.atomic(using=postgres_database):
            emit("page.viewed", 4)

    seen.wait_for(2)
    wait_quiet()
    assert seen.data == [1, 4]
    assert lost.reason == "rolled_back"


def test_a_commit_that_fails_publishes_nothing(
    postgres_database: str, live_site: UseSite
) -> None:
    seen = listen("page.viewed")
    live_site()
    through = Record.tags.through.objects.using(postgres_database)

    with pytest.raises(IntegrityError), transaction.atomic(using=postgres_database):
        through.create(record_id=404, tag_id=404)  # told at the commit
        lost = emit("page.viewed", 1)
    emit("page.viewed", 2)

    seen.wait_for(1)
    assert seen.data == [2]
    assert lost.reason == "rolled_back"


def test_a_statement_that_fails_in_a_savepoint_takes_its_events_back(
    postgres_database: str, live_site: UseSite
) -> None:
    seen = listen("page.viewed")
    live_site()
    records = Record.objects.using(postgres_database)

    with transaction.atomic(using=postgres_database):
        record = records.create(patient_id=1)
        emit("page.viewed", 1)
        with pytest.raises(IntegrityError), transaction.atomic(using=postgres_database):
            emit("page.viewed", 2)
            records.create(pk=record.pk, patient_id=2)

    seen.wait_for(1)
    wait_quiet()
    assert seen.data == [1]
