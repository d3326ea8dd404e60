"""What a handler does to a connection, which the next one must not find."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from django_gomq import Message, consumer, emit, get_broker
from django_gomq.database import clean_up
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.databases import allowed, postgres_alias
from tests.django_site.handlers import wait_quiet

Poison = Callable[[str], object]


@pytest.fixture
def alias(
    postgres_server: dict[str, object], django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """A PostgreSQL database without health checks, where errors would show."""
    with (
        allowed(django_db_blocker),
        postgres_alias(postgres_server, CONN_MAX_AGE=None) as alias,
    ):
        yield alias


def execute(alias: str, statement: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


def write(alias: str) -> None:
    Record.objects.using(alias).create(patient_id=1)


def leave_block(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    write(alias)


def leave_two_blocks(alias: str) -> None:
    leave_block(alias)
    leave_block(alias)


def leave_broken_block(alias: str) -> None:
    leave_block(alias)
    execute(alias, "SELECT nothing")


def leave_manual(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    write(alias)


def begin_behind_django(alias: str) -> None:
    execute(alias, "BEGIN")
    write(alias)


def close_behind_django(alias: str) -> None:
    execute(alias, "SELECT 1")
    connections[alias].connection.close()


def end_backend(alias: str) -> None:
    execute(alias, "SELECT pg_terminate_backend(pg_backend_pid())")


def end_backend_in_block(alias: str) -> None:
    leave_block(alias)
    end_backend(alias)


def close_in_block(alias: str) -> None:
    leave_block(alias)
    connections[alias].close()


def copy_half(alias: str) -> None:
    execute(alias, "SELECT 1")
    raw = connections[alias].connection.cursor()
    copy = raw.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT")
    copy.__enter__()


POISONS = [
    leave_block,
    leave_two_blocks,
    leave_broken_block,
    leave_manual,
    begin_behind_django,
    close_behind_django,
    end_backend,
    end_backend_in_block,
    close_in_block,
    copy_half,
]


@pytest.mark.parametrize("kind", ["each", "batch", "async"])
@pytest.mark.parametrize("poison", POISONS)
def test_what_a_handler_leaves_behind_does_not_reach_the_next(
    alias: str, live_site: UseSite, poison: Poison, kind: str
) -> None:
    seen: list[tuple[bool, bool, int]] = []

    def look(message: object) -> None:
        count = Record.objects.using(alias).count()
        connection = connections[alias]
        seen.append((connection.in_atomic_block, connection.autocommit, count))

    register("page.left", kind, lambda message: poison(alias))
    register("page.viewed", kind, look)
    live_site(THREADS=1)
    for _ in range(2):
        emit("page.left")
        wait_quiet()
        emit("page.viewed")
        wait_quiet()

    assert seen == [(False, True, 0)] * 2
    assert get_broker().stats().consumers["page.viewed"].succeeded == 2


def register(event: str, kind: str, handler: Callable[[Any], object]) -> None:
    async def handle_async(message: Message[Any]) -> None:
        await sync_to_async(handler)(message)

    if kind == "async":
        consumer(event, name=event)(handle_async)
    elif kind == "batch":
        consumer(event, name=event, batch=10)(handler)
    else:
        consumer(event, name=event)(handler)


@pytest.mark.parametrize("kind", ["each", "async"])
def test_a_connection_that_breaks_while_it_is_set_up_is_not_used_again(
    alias: str, live_site: UseSite, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = type(connections[alias])
    init, broken = made.init_connection_state, list[int]()

    def break_first(connection: Any) -> None:
        if not broken:
            broken.append(1)
            connection.connection.pgconn.finish()
        init(connection)

    register("page.viewed", kind, lambda message: write(alias))
    live_site(THREADS=1)
    monkeypatch.setattr(made, "init_connection_state", break_first)
    for _ in range(3):
        emit("page.viewed")
        wait_quiet()

    stats = get_broker().stats().consumers["page.viewed"]
    assert (stats.dead_lettered, stats.succeeded) == (1, 2)


def test_without_autocommit_what_was_not_committed_is_rolled_back_without_a_word(
    postgres_server: dict[str, object],
    django_db_blocker: DjangoDbBlocker,
    live_site: UseSite,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts: list[int] = []
    with (
        allowed(django_db_blocker),
        postgres_alias(postgres_server, CONN_MAX_AGE=None) as alias,
    ):
        connections.databases[alias]["AUTOCOMMIT"] = False
        consumer("page.left", name="writes")(lambda message: write(alias))
        consumer("page.viewed", name="counts")(
            lambda message: counts.append(Record.objects.using(alias).count())
        )
        live_site(THREADS=1)
        emit("page.left")
        wait_quiet()
        emit("page.viewed")
        wait_quiet()

    assert counts == [0]
    assert [one for one in caplog.records if one.name == "gomq.database"] == []


@pytest.mark.django_db(transaction=True)
def test_a_sqlite_database_closed_behind_django_is_opened_again(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connections["default"].copy()
    monkeypatch.setattr(connection, "is_in_memory_db", lambda: False)
    connection.connect()
    raw = connection.connection
    raw.close()
    with monkeypatch.context() as patch:
        patch.setattr(connections, "all", lambda **_: [connection])

        clean_up()

    with pytest.raises(sqlite3.ProgrammingError):
        raw.in_transaction  # noqa: B018 - raises
    assert connection.connection is None
