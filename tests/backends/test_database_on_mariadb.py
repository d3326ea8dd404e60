"""The database backend passes the suite on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_gomq.testing.conformance import ConformanceSuite
from django_gomq.testing.conformance.site import Site
from tests.backends.databases import DatabaseHarness, database
from tests.django_site import mariadb


class MariaDBHarness(DatabaseHarness):
    pass


@pytest.fixture(scope="module", autouse=True)
def _served(queries_allowed: None) -> Iterator[None]:
    with mariadb.running() as server:
        MariaDBHarness.server = server
        with database({"ENGINE": "django.db.backends.mysql", **server.address}):
            yield


class TestMariaDB(ConformanceSuite):
    harness = MariaDBHarness


@pytest.mark.filterwarnings("ignore:The 'reconnect' argument:DeprecationWarning")
def test_a_driver_that_connects_anew_hides_no_lost_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pymysql.connections import Connection

    monkeypatch.setattr(Connection.ping, "__defaults__", (True,))  # as before 1.2
    site = Site(MariaDBHarness(), lambda verdict, feature: None)
    try:
        suite = TestMariaDB()
        suite.test_a_publish_without_an_answer_is_neither_taken_nor_refused(site)
    finally:
        site.close()
