"""A backend beside the rows of an application: it writes into their transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from django_gomq.bus.backend import Backend, Capabilities
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from tests.backends.fakes.lease import LEASE, LeaseBackend, LeaseHarness

ALIAS = "default"


class Database:
    """The toy transaction of one database alias."""

    def __init__(self) -> None:
        self.written: list[Message[Any]] | None = None
        """What the open transaction holds; None where none is open."""


class TransactionBackend(LeaseBackend):
    """Has a transaction and short delays, and neither order nor priorities."""

    name: ClassVar[str] = "transaction"
    capabilities = Capabilities(
        durable=True,
        transactional=True,
        max_delay=5.0,
        delayed_retry=True,
        counts_deliveries=True,
        uncounted_release=False,
        lease=LEASE,
    )

    def __init__(self, harness: TransactionHarness) -> None:
        super().__init__(harness.server)
        self._database = harness.database

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        if using != ALIAS:
            raise ConfigurationError(f"{using!r} is not our database")
        if self._database.written is None:
            raise ConfigurationError("no transaction is open")
        self._database.written += messages


class TransactionHarness(LeaseHarness):
    def __init__(self) -> None:
        super().__init__()
        self.database = Database()

    def make_backend(self) -> Backend:
        return TransactionBackend(self)

    @contextmanager
    def atomic(self) -> Iterator[str]:
        written = self.database.written = []
        try:
            yield ALIAS
            self.server.put(written)
        finally:
            self.database.written = None
