"""How many connections handlers hold, and how long, counted by a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import close_old_connections, connections
from django.db.backends.signals import connection_created
from pytest_django import DjangoDbBlocker

from django_gomq import Message, consumer, emit, emit_many, get_broker, site
from django_gomq.bus.worker.worker import Worker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.databases import (
    allowed,
    highest_count,
    kill_other_backends,
    other_backends,
    postgres_alias,
    wait_alone,
)
from tests.django_site.handlers import wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

UseDatabase = Callable[..., str]


@pytest.fixture
def use_database(
    postgres_server: dict[str, object],
    django_db_blocker: DjangoDbBlocker,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[UseDatabase]:
    """Adds a PostgreSQL database with these entries; by default Django's own.

    Threads do not run idle, which would give back what they kept.
    """
    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 3600.0)
    monkeypatch.setattr("django_gomq.database.ASYNC_IDLE_SECONDS", 3600.0)
    with allowed(django_db_blocker), ExitStack() as stack:

        def use(**entry: Any) -> str:
            alias = stack.enter_context(postgres_alias(postgres_server, **entry))
            wait_alone()
            return alias

        yield use


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The threads that open connections to the server, one entry for each."""
    threads: list[str] = []

    def note(connection: Any, **signal: object) -> None:
        if connection.vendor == "postgresql":
            threads.append(threading.current_thread().name)

    connection_created.connect(note)
    yield threads
    connection_created.disconnect(note)


def ask(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
        return pid


def sessions_so_far(alias: str) -> int:
    """Return how many sessions the server has begun for this database."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
        )
        count: int = cursor.fetchone()[0]
        return count


# ------------------------------------------------------------------------ how many


@pytest.mark.parametrize("with_async", [False, True])
def test_a_process_holds_a_connection_per_thread_and_one_for_all_async_handlers(
    use_database: UseDatabase, live_site: UseSite, with_async: bool
) -> None:
    alias = use_database()
    for number in range(40):
        consumer("page.viewed", name=f"counts.{number}")(lambda message: ask(alias))

    async def count(message: Message[Any]) -> None:
        await Record.objects.using(alias).acount()

    for number in range(8 * with_async):
        consumer("page.viewed", name=f"awaits.{number}", concurrency=8)(count)
    live_site(THREADS=4)
    stop, highest = threading.Event(), list[int]()
    other_backends()  # opens the connection that counts the others

    def watch() -> None:
        for _ in range(8):
            emit_many([("page.viewed", number) for number in range(4)])
            wait_quiet()
        stop.set()

    emitter = threading.Thread(target=watch)
    emitter.start()
    highest.append(highest_count(stop))
    emitter.join()

    stats = get_broker().stats().consumers
    assert 2 <= highest[0] <= 4 + with_async
    assert sum(one.succeeded for one in stats.values()) == 32 * (40 + 8 * with_async)


# ------------------------------------------------------------------------ how long


@pytest.mark.parametrize("is_async", [False, True])
def test_a_thousand_messages_cost_a_handful_of_connections(
    use_database: UseDatabase,
    live_site: UseSite,
    opened: list[str],
    is_async: bool,
) -> None:
    alias = use_database(CONN_MAX_AGE=0)

    async def count(message: Message[Any]) -> None:
        await Record.objects.using(alias).acount()

    handler = count if is_async else lambda message: ask(alias)
    consumer("page.viewed", name="counts")(handler)
    live_site(THREADS=1)
    began = sessions_so_far(alias)
    opened.clear()

    for _ in range(10):
        emit_many([("page.viewed", number) for number in range(100)])
        wait_quiet()

    assert get_broker().stats().consumers["counts"].succeeded == 1000
    assert len(opened) <= 3
    connections[alias].close()  # a session is counted when it reports, or ends
    assert sessions_so_far(alias) - began <= 5


def test_a_connection_is_younger_than_its_greatest_age(
    use_database: UseDatabase,
    live_site: UseSite,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_gomq.database.KEEP_SECONDS", 0.0)
    alias = use_database(CONN_MAX_AGE=0)
    consumer("page.viewed", name="counts")(lambda message: ask(alias))
    live_site(THREADS=1)
    opened.clear()

    emit_many([("page.viewed", number) for number in range(5)])
    wait_quiet()

    assert len(opened) == 5


def test_a_request_closes_its_connection_as_ever(
    use_database: UseDatabase, live_site: UseSite
) -> None:
    alias = use_database(CONN_MAX_AGE=0)
    live_site()
    ask(alias)

    close_old_connections()

    assert connections[alias].connection is None


def test_async_handlers_that_run_idle_give_their_connection_back(
    use_database: UseDatabase, live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.database.ASYNC_IDLE_SECONDS", 0.05)
    alias = use_database(CONN_MAX_AGE=None)
    counts: list[int] = []

    async def count(message: Message[Any]) -> None:
        counts.append(await Record.objects.using(alias).acount())

    consumer("page.viewed", name="counts")(count)
    live_site()
    for _ in range(2):
        emit("page.viewed")
        wait_quiet()
        wait_until(lambda: not other_backends(), "the idle connection to be closed")

    assert counts == [0, 0]


def test_a_close_gives_the_connections_of_async_handlers_back(
    use_database: UseDatabase, live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Worker.stop
    monkeypatch.setattr(
        Worker, "stop", lambda worker, timeout: stop(worker, max(timeout, 4 * SECONDS))
    )
    alias = use_database(CONN_MAX_AGE=None)

    async def count(message: Message[Any]) -> None:
        await Record.objects.using(alias).acount()

    consumer("page.viewed", name="counts")(count)
    live_site()
    emit("page.viewed")
    wait_quiet()
    kept = len(other_backends())

    site.close()

    assert kept == 1
    wait_until(lambda: not other_backends(), "the connection to be closed")


def test_an_async_handler_does_not_close_what_another_one_reads_from(
    use_database: UseDatabase, live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.database.KEEP_SECONDS", 0.0)
    alias = use_database(CONN_MAX_AGE=0)
    Record.objects.using(alias).bulk_create(Record(patient_id=n) for n in range(300))
    seen: list[int] = []
    counted = threading.Event()

    async def read(message: Message[Any]) -> None:
        async for record in Record.objects.using(alias).aiterator(chunk_size=100):
            if not seen:
                emit("page.counted", on_commit=False)
                while not counted.is_set():  # noqa: ASYNC110 - set by a thread
                    await asyncio.sleep(0.001)
            seen.append(record.patient_id)

    async def count(message: Message[Any]) -> None:
        await Record.objects.using(alias).acount()

    consumer("page.viewed", name="reads")(read)
    consumer("page.counted", name="counts")(count)
    live_site()

    emit("page.viewed")
    wait_until(lambda: get_broker().stats().consumers["counts"].succeeded)
    counted.set()
    wait_quiet()

    assert sorted(seen) == list(range(300))


# ----------------------------------------------------------------- health checks


@pytest.mark.parametrize("is_async", [False, True])
def test_health_checks_find_a_dead_connection_that_a_busy_thread_kept(
    use_database: UseDatabase, live_site: UseSite, is_async: bool
) -> None:
    alias = use_database(CONN_MAX_AGE=0, CONN_HEALTH_CHECKS=True)

    async def count(message: Message[Any]) -> None:
        await Record.objects.using(alias).acount()

    handler = count if is_async else lambda message: ask(alias)
    consumer("page.viewed", name="counts")(handler)
    live_site(THREADS=1)
    for _ in range(3):
        emit("page.viewed")
        wait_quiet()
        kill_other_backends()

    assert get_broker().stats().consumers["counts"].succeeded == 3
