"""Connections of the bus that break, or that nothing is heard from any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from django.db import OperationalError, connections

from django_gomq.bus.backend import Backend
from django_gomq.testing.conformance.site import (
    LONG,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends import proxy
from tests.backends.databases import (
    ALIAS,
    DatabaseHarness,
    PatientBackend,
    execute,
)
from tests.backends.vendors import VENDORS

PROXIED = "proxied"
LEASE = 15.0
ANSWER = 3.0


class ProxiedHarness(DatabaseHarness):
    """Its processes reach the server through a proxy, and the test directly."""

    def make_backend(self) -> Backend:
        return PatientBackend(using=PROXIED, lease=LEASE, answer_timeout=ANSWER)


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    queries_allowed: None,
) -> Iterator[str]:
    name = request.param
    assert isinstance(name, str)
    with VENDORS[name](tmp_path_factory.mktemp(name)):
        yield name


@pytest.fixture
def between(server: str) -> Iterator[proxy.Proxy]:
    """What stands before the server of the alias PROXIED."""
    reached = connections.databases[ALIAS]
    with proxy.before(reached["HOST"], reached["PORT"]) as made:
        connections.databases[PROXIED] = {
            **reached,
            "PORT": made.port,
            "OPTIONS": {"connect_timeout": 2},
        }
        yield made
        connections[PROXIED].close()
        del connections[PROXIED]
        del connections.databases[PROXIED]


@pytest.fixture
def site(between: proxy.Proxy) -> Iterator[Site]:
    made = Site(ProxiedHarness(), lambda verdict, feature: None)
    yield made
    between.speak()
    made.close()


def send(*numbers: int) -> None:
    """Publish from elsewhere, where the server can be reached."""
    elsewhere = Process(DatabaseHarness(), may_start=lambda: False)
    elsewhere.send(*numbers)
    elsewhere.close()


def failures(process: Process, name: str) -> int:
    return sum(call.failed for call in process.calls.of(name))


def test_no_call_waits_for_a_silent_server_without_end(
    site: Site, between: proxy.Proxy
) -> None:
    process, gate = site.process(), site.gate(1)
    process.consume(gate, concurrency=2)
    send(1)
    wait_until(lambda: gate.entered)

    between.fall_silent()
    gate.open()

    wait_until(lambda: failures(process, "settle"))
    wait_until(lambda: failures(process, "fetch"))
    between.speak()
    send(2)
    wait_until(lambda: process.stats().succeeded == 2)
    assert gate.handled == [(1, 1), (2, 1)]
    assert execute("SELECT 1 FROM gomq_delivery") == []


def test_a_stop_ends_while_the_server_is_silent(
    site: Site, between: proxy.Proxy
) -> None:
    others = set(threading.enumerate())
    process, gate = site.process(), site.gate()
    for name in ("suite.one", "suite.two", "suite.three"):
        process.consume(gate, name=name)
    send(*range(10))
    wait_until(lambda: len(gate.entered) == 3)
    ours = set(threading.enumerate()) - others
    between.fall_silent()
    closing = threading.Thread(target=process.close, args=(0,))

    closing.start()

    closing.join(LONG)
    assert not closing.is_alive()
    wait_until(
        lambda: not [one for one in ours if "database" in one.name if one.is_alive()]
    )
    between.speak()
    gate.open()
    site.let_lease_end()
    after, notes = site.process(), Notes()
    for name in ("suite.one", "suite.two", "suite.three"):
        after.consume(notes, name=name)
    wait_until(lambda: set(notes.numbers) == set(range(10)))


def test_a_process_whose_connections_are_forgotten_keeps_its_lease(
    site: Site, between: proxy.Proxy
) -> None:
    process, gate = site.process(), site.gate(1)
    process.consume(gate, concurrency=2)
    send(1)
    wait_until(lambda: gate.entered)
    between.forget()
    ((before,),) = execute("SELECT heartbeat FROM gomq_process")

    send(2)

    wait_until(lambda: gate.handled == [(2, 1)])
    wait_until(lambda: execute("SELECT heartbeat FROM gomq_process")[0][0] > before)
    gate.open()
    wait_until(lambda: process.stats().succeeded == 2)
    assert execute("SELECT count(*) FROM gomq_process WHERE ended IS NULL") == [(1,)]


def sessions(server: str) -> list[int]:
    """Return the ids of all sessions but that of the test."""
    mine, every = {
        "postgresql": (
            "pg_backend_pid()",
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'",
        ),
        "mariadb": (
            "connection_id()",
            "SELECT id FROM information_schema.processlist WHERE user = 'root'",
        ),
    }[server]
    ((own,),) = execute(f"SELECT {mine}")
    return [row[0] for row in execute(every) if row[0] != own]


def its_three(server: str) -> list[int]:
    """Wait until a process has three sessions: it claims, settles and beats."""
    found: list[int] = []

    def are_there() -> bool:
        found[:] = sessions(server)  # a sample has a fourth one for a moment
        return len(found) == 3

    wait_until(are_there)
    return found


def end_session(server: str, number: int) -> None:
    verb = "SELECT pg_terminate_backend(%s)" if server == "postgresql" else "KILL %s"
    with suppress(OperationalError):  # that of a sample has ended by itself
        execute(verb, number)
    wait_until(lambda: number not in sessions(server))


def test_each_connection_that_is_ended_is_made_anew(server: str, site: Site) -> None:
    process, notes = site.process(), Notes()
    process.consume(notes)
    send(0)
    wait_until(lambda: process.stats().succeeded == 1)
    connections[PROXIED].close()  # of this test
    ended: list[int] = []

    for number, session in enumerate(its_three(server), 1):
        end_session(server, session)
        ended.append(session)
        send(number)
        wait_until(lambda: process.stats().succeeded == number + 1)  # noqa: B023

    assert len(set(ended)) == 3
    assert its_three(server)
    assert sorted(notes.handled) == [(number, 1) for number in range(4)]


def test_connections_that_are_ended_under_load_lose_nothing(
    server: str, site: Site
) -> None:
    process, notes = site.process(), Notes(lambda _: time.sleep(0.001))
    process.consume(notes, concurrency=4)
    for start in range(0, 400, 100):
        send(*range(start, start + 100))
        for session in sessions(server):
            end_session(server, session)
        connections[PROXIED].close()

    wait_until(lambda: set(notes.numbers) == set(range(400)))
    wait_until(lambda: not execute("SELECT 1 FROM gomq_delivery"))
    process.wait_until_quiet()
    assert process.stats().dead_lettered == 0
