"""Redis with an outbox in PostgreSQL passes the suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_gomq.testing.conformance import ConformanceSuite
from tests.backends.databases import database
from tests.backends.outboxes import OutboxHarness
from tests.backends.redis_servers import harness_on
from tests.django_site import postgres


class WithOutbox(OutboxHarness):
    pass


@pytest.fixture(scope="module", autouse=True)
def _served(queries_allowed: None) -> Iterator[None]:
    with postgres.running() as server, harness_on("redis", WithOutbox):
        WithOutbox.database_server = server
        entry = {"ENGINE": "django.db.backends.postgresql", **server.address}
        with database(entry):
            yield


class TestRedisWithOutbox(ConformanceSuite):
    harness = WithOutbox
