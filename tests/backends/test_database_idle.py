"""An idle worker asks the database at most twice a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from django_gomq.backends.database.connection import OwnConnection
from django_gomq.backends.database.recording import RECORDED
from django_gomq.testing.conformance.site import Notes, Site
from tests.backends.databases import execute
from tests.bus.waiting import wait_until

LOOKS = 12


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note every statement on connections of the bus."""
    monkeypatch.setattr("tests.backends.databases.LEASE", 15.0)  # that of a site
    statements: list[str] = []
    make = OwnConnection._make

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if not sql.lstrip().startswith(("SELECT VERSION()", "SET SESSION")):
            statements.append(sql)  # else it is of Django, which connects
        return execute(sql, *rest)

    def make_counted(self: OwnConnection) -> Any:
        wrapper = make(self)
        wrapper.execute_wrappers.append(note)
        return wrapper

    monkeypatch.setattr(OwnConnection, "_make", make_counted)
    yield statements


def looks(statements: list[str]) -> int:
    return sum(each.startswith("SELECT (SELECT 1 FROM") for each in statements)


def test_an_idle_worker_asks_little_beside_its_looks(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as statements:
        process = processes.process()
        process.consume(Notes())
        wait_until(lambda: looks(statements) >= 6)  # the pauses have grown
        statements.clear()
        began = time.monotonic()

        wait_until(lambda: looks(statements) >= LOOKS)

        # A busy machine makes it less. The samples of every 15 seconds may fall in
        # twice, with eight statements.
        assert len(statements) <= 2 * (time.monotonic() - began) + 8, statements


def test_many_idle_consumers_ask_as_little_as_one(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as statements:
        process = processes.process()
        for number in range(20):
            process.broker.consume(["a.b"], Notes(), name=f"suite.number{number}")
        process.consume(Notes())
        wait_until(lambda: looks(statements) >= 6)
        statements.clear()
        began = time.monotonic()

        wait_until(lambda: looks(statements) >= LOOKS)

        assert len(statements) <= 2 * (time.monotonic() - began) + 8, statements


def test_what_is_dispatched_and_to_whom_is_one_trip_where_the_server_allows(
    processes: Site, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as statements:
        process, notes = processes.process(), Notes()
        process.consume(notes)
        wait_until(lambda: looks(statements) >= 1)
        statements.clear()

        process.send(1)

        wait_until(lambda: notes.numbers == [1])
        dispatch = next(one for one in statements if "envelope, " in one)
        assert (RECORDED in dispatch) == (vendor == "postgresql")


def test_a_slow_poll_still_finds_what_another_process_has_emitted(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as statements:
        process, notes = processes.process(), Notes()
        process.consume(notes)
        wait_until(lambda: looks(statements) >= 6)

        other = processes.process(may_start=lambda: False)
        other.send(1)

        wait_until(lambda: notes.numbers == [1])
        assert execute("SELECT 1 FROM gomq_outbox") == []
        connections["suite"].close()
