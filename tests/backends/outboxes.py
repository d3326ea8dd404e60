"""Redis with an outbox in a database, under the conformance suite and other tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from django.db import transaction

from django_gomq.backends.redis import RedisBackend
from django_gomq.bus.backend import Backend
from django_gomq.relay.backend import OutboxBackend
from tests.backends.databases import ALIAS, DatabaseHarness, Server
from tests.backends.redis_servers import RedisHarness


class OutboxHarness(RedisHarness):
    """Emits into the database of the suite, and reads from Redis."""

    database_server: ClassVar[Server | None] = None
    """What serves the database, where anything does."""

    def __init__(self) -> None:
        super().__init__()
        self._database = DatabaseHarness()
        self._database.server = self.database_server  # type: ignore[misc]

    def make_backend(self) -> Backend:
        backend = super().make_backend()
        assert isinstance(backend, RedisBackend)
        return OutboxBackend(backend, ALIAS)

    def close(self) -> None:
        super().close()
        self._database.close()

    def leave_thread(self) -> None:
        self._database.leave_thread()

    def stop_server(self) -> None:
        self._database.stop_server()
        super().stop_server()

    def start_server(self) -> None:
        self._database.start_server()
        super().start_server()

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        with self._database.lose_answers():
            yield

    @contextmanager
    def atomic(self) -> Iterator[str]:
        with transaction.atomic(using=ALIAS):
            yield ALIAS
