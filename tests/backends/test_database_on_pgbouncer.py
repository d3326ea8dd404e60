"""The database backend passes the suite behind PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_gomq.testing.conformance import ConformanceSuite
from tests.backends.databases import DatabaseHarness, database
from tests.django_site import postgres
from tests.django_site.pgbouncer import bouncing

SIZE = 3  # connections to the server: fewer than one worker and the test hold


class PgBouncerHarness(DatabaseHarness):
    """The server that stops, and comes back, is PgBouncer."""


@pytest.fixture(scope="module", autouse=True)
def _served(queries_allowed: None) -> Iterator[None]:
    with (
        postgres.serving() as address,
        bouncing(address, "transaction", SIZE) as bouncer,
    ):
        PgBouncerHarness.server = bouncer
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            **address,
            "PORT": bouncer.port,
            "DISABLE_SERVER_SIDE_CURSORS": True,
        }
        with database(entry):
            yield


class TestPgBouncer(ConformanceSuite):
    harness = PgBouncerHarness
