"""Databases for one test, and the alias of a PostgreSQL server; it starts none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from pytest_django import DjangoDbBlocker

from django_gomq.models import StoredDeadLetter
from tests.django_site.clinic.models import Record, Tag
from tests.django_site.waiting import wait_until

ALIAS = "postgres"


@contextmanager
def allowed(blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let a test use databases that nothing flushes for it.

    Dead letters that its site kept in its own database would stay for the next test.
    """
    with blocker.unblock():
        try:
            yield
        finally:
            _delete_dead_letters()


def _delete_dead_letters() -> None:
    connection = connections["default"]
    if not Path(connection.settings_dict["NAME"]).exists():
        return  # no test has needed it so far
    if StoredDeadLetter._meta.db_table in connection.introspection.table_names():
        StoredDeadLetter.objects.all().delete()
    connection.close()


@contextmanager
def postgres_alias(
    server: Mapping[str, object], *, has_pooler: bool = False, **options: Any
) -> Iterator[str]:
    """Have the database of this server, with our tables, under an alias.

    ``has_pooler``: what listens there keeps connections of its own to the server.
    """
    entry = {"ENGINE": "django.db.backends.postgresql", **server, **options}
    connections.configure_settings({"default": {}, ALIAS: entry})
    connections.databases[ALIAS] = entry
    models = (Tag, Record)
    has_pool = bool(options.get("OPTIONS", {}).get("pool"))
    try:
        with connections[ALIAS].schema_editor() as editor:
            for model in models:
                editor.create_model(model)
        yield ALIAS
    finally:
        # A thread that has not closed its own so far never does without the alias.
        close_async_connections()
        if not (has_pool or has_pooler):
            wait_alone()
        with connections[ALIAS].schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)
        connections[ALIAS].close()
        pooled: Any = connections[ALIAS]
        if has_pool:
            pooled.close_pool()
        del connections[ALIAS]
        del connections.databases[ALIAS]


def close_async_connections() -> None:
    """Close those of the thread that all async code of the process shares."""
    asyncio.run(sync_to_async(_forget_connections)())


def _forget_connections() -> None:
    connections.close_all()
    made = [one.alias for one in connections.all(initialized_only=True)]
    if ALIAS in made:  # it would keep the settings of this test
        del connections[ALIAS]


_OTHERS = (
    "FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND pid <> pg_backend_pid()"
)


def other_backends() -> list[int]:
    """Return the pids of the server's processes that serve other connections."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"SELECT pid {_OTHERS}")
        return [row[0] for row in cursor.fetchall()]


def wait_alone() -> None:
    """Wait until the backends have ended that served the test before."""
    wait_until(lambda: not other_backends(), "other backends to end")


def highest_count(stop: Event) -> int:
    """Watch until told to stop; return how many connections others had at most."""
    highest = 0
    while not stop.wait(0.002):
        highest = max(highest, len(other_backends()))
    return max(highest, len(other_backends()))


def kill_other_backends() -> None:
    """End what serves other connections, as a restart of the server would."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}")
    wait_alone()
