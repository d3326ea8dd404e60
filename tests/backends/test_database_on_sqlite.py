"""The database backend passes the suite on a file of SQLite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_gomq.testing.conformance import ConformanceSuite
from tests.backends.databases import DatabaseHarness, database


@pytest.fixture(scope="module", autouse=True)
def _served(
    tmp_path_factory: pytest.TempPathFactory, queries_allowed: None
) -> Iterator[None]:
    path = tmp_path_factory.mktemp("database") / "suite.sqlite3"
    options = {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL;"}
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options}
    with database(entry):
        yield


class TestSQLite(ConformanceSuite):
    harness = DatabaseHarness
