"""Workers of other processes are told by NOTIFY, and look themselves where it fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg
import pytest
from django.db import connections

from django_gomq.backends.database import notify
from django_gomq.backends.database.notify import CHANNEL, PAUSE
from django_gomq.bus.backend import Backend
from django_gomq.bus.hooks import Hook
from django_gomq.testing.conformance.site import LONG, Notes, Process, Site, wait_until
from tests.backends import proxy
from tests.backends.databases import (
    ALIAS,
    TABLES,
    DatabaseHarness,
    PatientBackend,
    database,
    execute,
)
from tests.backends.test_database_idle import LOOKS, counted, looks
from tests.django_site import postgres
from tests.django_site.pgbouncer import bouncing

BACKEND = "django_gomq.backends.database.backend"
NEVER = 3600.0
"""Seconds until a worker would look by itself."""
THREADS = ("gomq-database-sender", "gomq-database-listener")


class NotifyingHarness(DatabaseHarness):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = {"notify": True, **options}

    def make_backend(self) -> Backend:
        return PatientBackend(using=ALIAS, **self._options)


class Failures(Hook):
    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def failed(self, where: str, error: BaseException) -> None:
        self.errors.append(error)


@pytest.fixture(scope="module")
def server(queries_allowed: None) -> Iterator[postgres.Server]:
    with postgres.running() as running:
        yield running


@contextmanager
def served(address: Mapping[str, object], **changed: object) -> Iterator[None]:
    """Have our tables there for one test."""
    entry = {"ENGINE": "django.db.backends.postgresql", **address, **changed}
    with database(entry):
        try:
            yield
        finally:
            tables = ", ".join(model._meta.db_table for model in TABLES)
            execute(f"DROP TABLE {tables}")


@contextmanager
def site_of(harness: DatabaseHarness) -> Iterator[Site]:
    made = Site(harness, lambda verdict, feature: None)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def never_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no worker look by itself again once it has found nothing."""
    monkeypatch.setattr(f"{BACKEND}.SHORTEST_PAUSE", NEVER)
    monkeypatch.setattr(f"{BACKEND}.LONGEST_PAUSE", NEVER)


@pytest.fixture
def site(server: postgres.Server, never_look: None) -> Iterator[Site]:
    with served(server.address), site_of(NotifyingHarness()) as made:
        yield made


def listeners() -> list[int]:
    """Return the sessions that listen, by what they asked last."""
    rows = execute(
        "SELECT pid FROM pg_stat_activity WHERE query = %s AND state = 'idle'",
        f"LISTEN {CHANNEL}",
    )
    return [row[0] for row in rows]


def elsewhere(site: Site) -> Process:
    """Return another process, in which no consumer runs."""
    return site.process(may_start=lambda: False)


def assert_told(sender: Process, notes: Notes, *numbers: int) -> None:
    """Send one after the other, so that each needs a notification of its own."""
    for number in numbers:
        sender.send(number)
        wait_until(lambda: number in notes.numbers)  # noqa: B023


def test_a_worker_is_told_what_another_process_has_emitted(site: Site) -> None:
    worker, notes = site.process(), Notes()
    worker.consume(notes)
    wait_until(listeners)

    assert_told(elsewhere(site), notes, *range(5))


def test_what_was_emitted_before_it_listened_is_found(site: Site) -> None:
    worker, notes, listens = site.process(), Notes(), threading.Event()
    original = notify._Listener._is_heard

    def wait(self: Any) -> bool:
        listens.wait()
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notify._Listener, "_is_heard", wait)
        worker.consume(notes)
        wait_until(lambda: len(worker.calls.of("wait")) > 2)  # it has found nothing
        elsewhere(site).send(1)
        listens.set()

        wait_until(lambda: notes.numbers == [1])


@contextmanager
def overheard(server: postgres.Server) -> Iterator[psycopg.Connection[Any]]:
    address = server.address
    with psycopg.connect(
        host=str(address["HOST"]),
        port=str(address["PORT"]),
        user=str(address["USER"]),
        dbname=str(address["NAME"]),
        autocommit=True,
    ) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield connection


def test_a_process_sends_few_however_many_it_emits_and_not_on_its_connection(
    site: Site, server: postgres.Server
) -> None:
    sender = elsewhere(site)
    site.process().consume(Notes(), starts=False)
    with overheard(server) as connection:
        began = time.monotonic()
        for number in range(300):
            sender.send(number)
        longest = time.monotonic() - began

        heard = list(connection.notifies(timeout=LONG, stop_after=1))
        heard += connection.notifies(timeout=5 * PAUSE)

    ((mine,),) = execute("SELECT pg_backend_pid()")
    assert 1 <= len(heard) <= longest / PAUSE + 3
    assert mine not in {each.pid for each in heard}


def test_a_listener_that_was_cut_off_listens_anew(site: Site) -> None:
    notes, failures = Notes(), Failures()
    worker = site.process(hooks=[failures])
    worker.consume(notes)
    sender = elsewhere(site)
    wait_until(listeners)
    (first,) = listeners()

    execute("SELECT pg_terminate_backend(%s)", first)

    assert_told(sender, notes, 1)
    wait_until(lambda: listeners() not in ([], [first]))
    assert_told(sender, notes, 2, 3)
    assert len(failures.errors) == 1


def test_a_listener_goes_on_after_the_server_was_away(
    site: Site, server: postgres.Server
) -> None:
    worker, notes = site.process(), Notes()
    worker.consume(notes)
    sender = elsewhere(site)
    wait_until(listeners)
    assert_told(sender, notes, 1)
    connections[ALIAS].close()

    server.restart()

    wait_until(listeners)
    assert_told(sender, notes, 2, 3)


def test_a_listener_finds_out_that_its_connection_died_in_silence(
    server: postgres.Server, never_look: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.address
    with (
        proxy.before(str(address["HOST"]), int(str(address["PORT"]))) as between,
        served(address, PORT=between.port),
        site_of(NotifyingHarness(answer_timeout=3.0)) as site,
    ):
        worker, notes = site.process(), Notes()
        worker.consume(notes)
        wait_until(lambda: len(worker.calls.of("wait")) > 2)
        wait_until(listeners)
        connections[ALIAS].close()
        between.forget()
        monkeypatch.setattr(notify, "CHECK_SECONDS", 0.5)

        sender = elsewhere(site)
        assert_told(sender, notes, 1, 2, 3)


def test_a_pooler_that_passes_nothing_on_is_told_of_and_workers_look(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "PROBE_SECONDS", 1.0)
    with (
        bouncing(server.address, "transaction", 5) as bouncer,
        served(server.address, PORT=bouncer.port),
        site_of(NotifyingHarness()) as site,
    ):
        notes, failures = Notes(), Failures()
        worker = site.process(hooks=[failures])
        worker.consume(notes)

        wait_until(lambda: failures.errors)
        elsewhere(site).send(1)

        wait_until(lambda: notes.numbers == [1])
        (error,) = failures.errors
        assert "transaction mode" in str(error)


def test_an_alias_of_its_own_listens_past_a_pooler(
    server: postgres.Server, never_look: None
) -> None:
    direct = {"ENGINE": "django.db.backends.postgresql", **server.address}
    with (
        bouncing(server.address, "transaction", 5) as bouncer,
        served(server.address, PORT=bouncer.port),
    ):
        connections.configure_settings({"default": {}, "direct": direct})
        connections.databases["direct"] = direct
        try:
            with site_of(NotifyingHarness(notify="direct")) as site:
                worker, notes = site.process(), Notes()
                worker.consume(notes)
                wait_until(listeners)

                assert_told(elsewhere(site), notes, 1, 2, 3)
        finally:
            del connections.databases["direct"]


def test_both_threads_end_with_the_broker(site: Site) -> None:
    worker, notes = site.process(), Notes()
    worker.consume(notes)
    worker.send(1)
    wait_until(lambda: notes.numbers == [1])
    wait_until(lambda: running() == set(THREADS))

    worker.close()

    wait_until(lambda: not running())


def running() -> set[str]:
    return {one.name for one in threading.enumerate() if one.name in THREADS}


def test_an_idle_worker_that_is_notified_asks_as_little_as_another(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        served(server.address),
        site_of(NotifyingHarness(lease=15.0)) as site,
        counted(monkeypatch) as statements,
    ):
        process = site.process()
        process.consume(Notes())
        wait_until(lambda: looks(statements) >= 8)
        statements.clear()
        began = time.monotonic()

        wait_until(lambda: looks(statements) >= LOOKS)

        assert len(statements) <= 2 * (time.monotonic() - began) + 8, statements


def test_a_child_of_a_fork_sends_on_a_connection_of_its_own(
    site: Site, server: postgres.Server
) -> None:
    site.process().consume(Notes(), starts=False)
    sender = elsewhere(site)
    with overheard(server) as connection:
        sender.send(1)
        (first,) = connection.notifies(timeout=LONG, stop_after=1)
        connections[ALIAS].close()

        pid = os.fork()
        if not pid:
            _send_in_child(sender)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

        (second,) = connection.notifies(timeout=LONG, stop_after=1)
        sender.send(3)
        (third,) = connection.notifies(timeout=LONG, stop_after=1)
    assert first.payload == third.payload != second.payload
    assert first.pid == third.pid != second.pid


def _send_in_child(sender: Process) -> NoReturn:
    try:
        notify._JOIN_SECONDS = LONG  # type: ignore[misc]
        sender.send(2)
        sender.close()
        os._exit(0)
    finally:
        os._exit(1)
