"""The backend of a broker with an outbox: emits go into a database, and are forwarded.

All else is that of the server: consumers read there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import msgspec
from django.db import connections

from django_gomq.backends.database.connection import (
    DIALECTS,
    OwnConnection,
    check_alias,
)
from django_gomq.backends.database.outbox import Statement
from django_gomq.backends.database.publishing import Outbox
from django_gomq.bus.backend import Backend, BackendContext
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.errors import ConfigurationError, PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ServerSample, ServerStats

from . import table
from .delegating import DelegatingBackend
from .relay import ANSWER_SECONDS, Relay


class OutboxBackend(DelegatingBackend):
    """Writes events beside the rows they speak of, for the server of a backend.

    ``using`` is the alias of the database. A process whose consumers run forwards what
    was committed, one of all at a time.
    """

    def __init__(self, backend: Backend, using: str) -> None:
        super().__init__(backend)
        promised = backend.capabilities
        if promised.transactional or not promised.durable:
            is_one = promised.transactional
            raise ConfigurationError(
                f"outbox={using!r} is for a backend with a server beside the database, "
                f"and {backend.name!r} {'is in one' if is_one else 'has none'}: leave "
                "outbox out."
            )
        check_alias("outbox", using)
        self.capabilities = msgspec.structs.replace(promised, transactional=True)
        self.database = self._using = using
        self.relays = True
        self._sample = ServerSample()
        self._is_failing = False
        self._consumers: dict[str, Consumer] = {}

    def open(self, context: BackendContext) -> None:
        super().open(context)
        self._context = context
        self._outbox = Outbox(self._using, context.broker)
        self._relay = Relay(self._using, self._backend, context)

    def close(self, timeout: float) -> int | None:
        self._relay.end(timeout)
        return super().close(timeout)

    def check(self, consumers: Sequence[Consumer]) -> list[str]:
        self._know(consumers)
        absent = table.missing_tables(self._using)
        if absent:
            command = f"manage.py migrate gomq --database {self._using}"
            names = ", ".join(absent)
            return [f"Database {self._using!r} lacks {names}: run {command}."]
        return super().check(consumers)

    # ------------------------------------------------------------ publishing

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        error = self._outbox.write(self._writing(messages))
        if error is None:
            self.wake()
        return [error] * len(messages)

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        self._outbox.write_into(using, self._writing(messages))

    def _writing(
        self, messages: Sequence[Message[Any]]
    ) -> Callable[[], Sequence[Statement]]:
        dialect = DIALECTS[connections[self._using].vendor]
        broker, source = self._context.broker, self._context.source
        return partial(table.insertions, dialect, broker, messages, source)

    def wake(self) -> None:
        self._relay.wake()

    # ------------------------------------------------------------ where consumers run

    def announce(self, consumers: Sequence[Consumer]) -> None:
        self._relay.start()
        self._know(consumers)
        super().announce(consumers)

    def _know(self, consumers: Sequence[Consumer]) -> None:
        """Remember who waits for what stands in the outbox."""
        found = {consumer.name: consumer for consumer in consumers}
        self._consumers = {**self._consumers, **found}

    # ------------------------------------------------------------ operators

    def stats(self) -> ServerSample:
        """Return what waits at the server, or did when that answered last.

        What waits in the outbox is told also while the server is away.
        """
        own = OwnConnection(self._using, ANSWER_SECONDS)
        with closing(own) as connection:
            found = table.sample(connection, self._context.broker)
        try:
            self._sample, self._is_failing = super().stats(), False
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            if not self._is_failing:  # once for each outage
                self._context.inbox.report(error)
            self._is_failing = True
        known = self._sample.consumers
        return msgspec.structs.replace(
            self._sample,
            consumers={name: self._with(found, name, known[name]) for name in known},
            outbox_depth=found.depth,
            outbox_oldest_age=found.oldest_age,
            outbox_refused=found.refused,
            is_relayed=found.is_relayed,
        )

    def _with(
        self, found: table.Sample, consumer: str, server: ServerStats
    ) -> ServerStats:
        """Return what waits for a consumer at its server and in the outbox."""
        known = self._consumers.get(consumer)
        mine = [
            share
            for share in found.waiting
            if known is not None and known.subscribes_to(share.type)
        ]
        due = [share for share in mine if share.is_due]
        ages = [server.oldest_age or 0.0, *(share.due_age for share in due)]
        delayed = sum(share.count for share in mine if not share.is_due)
        return msgspec.structs.replace(
            server,
            ready=(server.ready or 0) + sum(share.count for share in due),
            scheduled=(server.scheduled or 0) + delayed,
            oldest_age=max(ages),
        )
