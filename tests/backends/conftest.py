"""Servers for the tests of backends, and the table of faults at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from django_gomq.testing.conformance.site import Site
from tests.backends import fault_table
from tests.backends.databases import DatabaseHarness
from tests.backends.redis_servers import PROGRAMS, RedisHarness, harness_on
from tests.backends.vendors import VENDORS


@pytest.fixture(scope="module")
def queries_allowed(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let tests, and the threads of the bus, use databases that they bring along."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="module", params=list(VENDORS))
def vendor(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    queries_allowed: None,
) -> Iterator[str]:
    """Serve each kind of database in turn, under the alias of the suite."""
    name = request.param
    assert isinstance(name, str)
    with VENDORS[name](tmp_path_factory.mktemp(name)):
        yield name


@pytest.fixture
def processes(vendor: str) -> Iterator[Site]:
    """Make processes of one site on that database."""
    made = Site(DatabaseHarness(), lambda verdict, feature: None)
    yield made
    made.close()


@pytest.fixture(scope="module", params=list(PROGRAMS))
def redis_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve Redis, and then Valkey, for the harness."""
    name = request.param
    assert isinstance(name, str)
    with harness_on(name, RedisHarness):
        yield name


@pytest.fixture
def redis_site(redis_kind: str) -> Iterator[Site]:
    """Make processes of one site on that server."""
    made = Site(RedisHarness(), lambda verdict, feature: None)
    yield made
    made.close()


@pytest.fixture
def redis_version(redis_kind: str, redis_client: Any) -> str:
    """Return the name and the version of that server."""
    told = redis_client.info("server")
    return f"{redis_kind.title()} {told[f'{redis_kind}_version']}"


@pytest.fixture
def redis_client(redis_kind: str) -> Iterator[Any]:
    """Return redis-py's client of that server, past the proxy."""
    with RedisHarness.server.client() as client:
        yield client


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what became of the events in each fault."""
    lines = fault_table.lines_of(terminalreporter)
    if lines:
        terminalreporter.section("faults")
        terminalreporter.write_line(fault_table.text_of(lines))
