"""The database backend passes the suite on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_gomq.testing.conformance import ConformanceSuite
from tests.backends.databases import DatabaseHarness, database
from tests.django_site import postgres


class PostgreSQLHarness(DatabaseHarness):
    pass


@pytest.fixture(scope="module", autouse=True)
def _served(queries_allowed: None) -> Iterator[None]:
    with postgres.running() as server:
        PostgreSQLHarness.server = server
        entry = {"ENGINE": "django.db.backends.postgresql", **server.address}
        with database(entry):
            yield


class TestPostgreSQL(ConformanceSuite):
    harness = PostgreSQLHarness
