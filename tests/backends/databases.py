"""The database backend under the conformance suite: one harness for each vendor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

from django.db import Error, connections, transaction

from django_gomq import models
from django_gomq.backends.database import DatabaseBackend
from django_gomq.bus.backend import Backend
from django_gomq.bus.consumer import Consumer
from django_gomq.testing.conformance import Harness
from django_gomq.testing.conformance.site import LONG
from tests.backends import proxy

ALIAS = "suite"
LEASE = 10.0
TABLES = (
    models.OutboxEvent,
    models.HistoryEvent,
    models.RecordedConsumer,
    models.DueDelivery,
    models.EndedDelivery,
    models.WorkerProcess,
    models.StoredDeadLetter,
    models.HandledMessage,
    models.SpilledMessage,
    models.SpillingProcess,
    models.RelayedEvent,
    models.RelayLease,
)


@contextmanager
def database(entry: Mapping[str, Any]) -> Iterator[None]:
    """Have this database, with our tables, under the alias of the suite."""
    made = dict(entry)
    connections.configure_settings({"default": {}, ALIAS: made})
    connections.databases[ALIAS] = made
    try:
        with connections[ALIAS].schema_editor() as editor:
            for model in TABLES:
                editor.create_model(model)
        yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]


def execute(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Execute a statement; return its rows."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


class Server(Protocol):
    """What can be stopped, and started again at the same address."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class PatientBackend(DatabaseBackend):
    """Is set up by a later try, where an answer came too late."""

    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        until = time.monotonic() + LONG
        while True:
            try:
                return super().setup(consumers)
            except Error:
                if time.monotonic() > until:
                    raise


class DatabaseHarness(Harness):
    """Works on the database that stands under the alias, and empties it."""

    server: ClassVar[Server | None] = None
    """What serves it, where anything does."""

    def __init__(self) -> None:
        self._is_up = True
        self._cut: list[DatabaseBackend] = []

    def make_backend(self) -> Backend:
        return DatabaseBackend(using=ALIAS, lease=LEASE)

    def close(self) -> None:
        for model in TABLES:
            execute(f"DELETE FROM {model._meta.db_table}")
        connections[ALIAS].close()

    def leave_thread(self) -> None:
        connections[ALIAS].close()

    def pass_time(self, seconds: float) -> None:
        execute("UPDATE gomq_process SET heartbeat = heartbeat - %s", seconds)

    def cut(self, backend: Backend) -> None:
        assert isinstance(backend, DatabaseBackend)
        backend._pulse.stop()
        self._cut.append(backend)

    def mend(self, backend: Backend) -> None:
        assert isinstance(backend, DatabaseBackend)
        if backend in self._cut:
            self._cut.remove(backend)
            backend._pulse.start()

    def stop_server(self) -> None:
        if self.server is None:
            self.cannot("stop the server")
        connections[ALIAS].close()
        self.server.stop()
        self._is_up = False

    def start_server(self) -> None:
        if self.server is not None and not self._is_up:
            self.server.start()
            self._is_up = True

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        """Reach the server, from this thread, through what loses its answer."""
        if self.server is None:
            self.cannot("lose the answers of the server")
        connection = connections[ALIAS]
        reached = connection.settings_dict
        connection.close()
        with proxy.before(reached["HOST"], reached["PORT"]) as between:
            connection.settings_dict = {
                **reached,
                "HOST": "127.0.0.1",
                "PORT": between.port,
            }
            connection.ensure_connection()
            between.lose_answer()
            try:
                yield
            finally:
                connection.close()
                connection.settings_dict = reached

    def put_garbage(self, event_type: str) -> None:
        models.OutboxEvent.objects.using(ALIAS).create(
            type=event_type, precedence=4, made=0.0, envelope=b"\xff"
        )

    @contextmanager
    def atomic(self) -> Iterator[str]:
        with transaction.atomic(using=ALIAS):
            yield ALIAS
