"""A backend on a table of the site's database, for tests of emits in transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import connections

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    Fetched,
    Settled,
    Settlement,
    Want,
)
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import ConfigurationError, PublishError
from django_gomq.bus.message import Message

CREATE = (
    "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, type TEXT, body TEXT)"
)


class OutboxBackend(Backend):
    """Writes each message as a row, which one process reads; of one database."""

    name: ClassVar[str] = "outbox"

    def __init__(self, *, using: str = "default") -> None:
        self.capabilities = Capabilities(durable=True, transactional=True)
        self.using = using
        self._taken: set[int] = set()

    def open(self, context: BackendContext) -> None:
        pass

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        self._insert(messages)
        return [None] * len(messages)

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        if using != self.using:
            raise ConfigurationError(f"The outbox is in {self.using!r}.")
        self._insert(messages)

    def _insert(self, messages: Sequence[Message[Any]]) -> None:
        with connections[self.using].cursor() as cursor:
            for message in messages:
                cursor.execute(
                    "INSERT INTO outbox (type, body) VALUES (%s, %s)",
                    [message.type, message.body.decode()],
                )

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT id, type, body FROM outbox ORDER BY id")
            rows = [row for row in cursor.fetchall() if row[0] not in self._taken]
        connections[self.using].close()
        found = []
        for want in wants:
            mine = [row for row in rows if want.consumer.subscribes_to(row[1])]
            self._taken.update(row[0] for row in mine[: want.room])
            deliveries = [
                Delivery(Message(row[1], row[2].encode()), 0.0, 1, row[0])
                for row in mine[: want.room]
            ]
            found.append(Fetched(want.consumer.name, deliveries))
        return found

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        with connections[self.using].cursor() as cursor:
            for settlement in settlements:
                token = str(settlement.delivery.token)
                cursor.execute("DELETE FROM outbox WHERE id = %s", [token])
        connections[self.using].close()
        return [Settled.DONE] * len(settlements)


def create_table(using: str = "default") -> None:
    """Make the table, empty."""
    with connections[using].cursor() as cursor:
        cursor.execute(CREATE)
        cursor.execute("DELETE FROM outbox")


def rows(using: str = "default") -> list[str]:
    """Return the types of what waits, oldest first."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT type FROM outbox ORDER BY id")
        return [row[0] for row in cursor.fetchall()]
