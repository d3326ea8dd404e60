"""Commits whose answer is lost, and connections whose thread is late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database.connection import OwnConnection
from django_gomq.bus.delivery import Reject, RetryLater
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.site import LONG, Notes, Site, wait_until
from tests.backends.databases import ALIAS, execute

AGAIN = Retry(attempts=2, min_delay=0.01, max_delay=0.01)


def settles(step: object) -> bool:
    return "Settling." in getattr(step, "__qualname__", "")


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Lose the answer of the first commit that settles anything; what it settled."""
    run, lost = OwnConnection.run, list[object]()

    def lose_answer(self: OwnConnection, step: Any, patience: Any = None) -> Any:
        answer = run(self, step, patience)
        if settles(step) and not lost:
            lost.append(step)
            raise OperationalError("the connection broke")
        return answer

    monkeypatch.setattr(OwnConnection, "run", lose_answer)
    return lost


def raise_first(error: Callable[[], Exception]) -> Notes:
    errors = [error()]

    def handle(message: object) -> None:
        if errors:
            raise errors.pop()

    return Notes(handle)


def test_a_success_is_counted_as_one(processes: Site, lost: list[object]) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)

    process.send_many([1, 2, 3])
    wait_until(lambda: process.stats().succeeded + process.stats().lost_leases == 3)

    assert lost
    assert (process.stats().succeeded, process.stats().lost_leases) == (3, 0)
    assert execute("SELECT count(*) FROM gomq_delivery") == [(0,)]


@pytest.mark.parametrize("error", [ValueError, lambda: RetryLater(0.01)])
def test_a_retry_is_one_and_comes_once(
    processes: Site, lost: list[object], error: Callable[[], Exception]
) -> None:
    process, notes = processes.process(), raise_first(error)
    process.consume(notes, retry=AGAIN)

    process.send(1)
    wait_until(lambda: process.stats().succeeded)

    assert lost
    assert notes.numbers == [1, 1]
    assert (process.stats().retries, process.stats().lost_leases) == (1, 0)


def test_a_dead_letter_is_kept_once(processes: Site, lost: list[object]) -> None:
    process, notes = processes.process(), raise_first(lambda: Reject("no"))
    process.consume(notes)

    process.send(1)
    wait_until(lambda: process.stats().dead_lettered + process.stats().lost_leases)

    assert lost
    assert (process.stats().dead_lettered, process.stats().lost_leases) == (1, 0)
    assert len(process.broker.dead_letters()) == 1


def test_a_dead_letter_that_was_not_committed_is_none_where_others_have_handled_it(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lost = OwnConnection.run, list[object]()

    def lose_commit(self: OwnConnection, step: Any, patience: Any = None) -> Any:
        if not settles(step) or lost:
            return run(self, step, patience)
        lost.append(step)

        def step_and_break(cursor: CursorWrapper) -> None:
            step(cursor)
            raise OperationalError("the connection broke")

        with pytest.raises(OperationalError):
            run(self, step_and_break, patience)
        # As who had it since.
        run(self, lambda cursor: cursor.execute("DELETE FROM gomq_delivery"))
        raise OperationalError("the connection broke")

    monkeypatch.setattr(OwnConnection, "run", lose_commit)
    process, notes = processes.process(), raise_first(lambda: Reject("no"))
    process.consume(notes)

    process.send(1)
    wait_until(lambda: process.stats().dead_lettered + process.stats().lost_leases)

    assert lost
    assert (process.stats().dead_lettered, process.stats().lost_leases) == (0, 1)
    assert execute("SELECT count(*) FROM gomq_ended_delivery") == [(0,)]


def test_what_was_taken_by_others_meanwhile_is_a_lost_lease(
    processes: Site, lost: list[object]
) -> None:
    process, gate = processes.process(), processes.gate()
    process.consume(gate, retry=AGAIN)
    process.send(1)
    wait_until(lambda: gate.entered)
    execute("UPDATE gomq_delivery SET lease = lease + 1")

    gate.open()
    wait_until(lambda: process.stats().lost_leases == 1)

    assert lost
    assert process.stats().succeeded == 0


def test_a_connection_that_a_close_leaves_to_a_late_thread_is_closed_by_that(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed_by = BaseDatabaseWrapper.close, list[str]()

    def note_close(wrapper: BaseDatabaseWrapper) -> None:
        closed_by.append(threading.current_thread().name)
        close(wrapper)

    monkeypatch.setattr(BaseDatabaseWrapper, "close", note_close)
    own = OwnConnection(ALIAS, LONG)
    entered, may_end = threading.Event(), threading.Event()

    def step(cursor: object) -> None:
        entered.set()
        may_end.wait(LONG)

    late = threading.Thread(target=own.run, args=(step,), name="late")
    late.start()
    assert entered.wait(LONG)
    own.close(0)
    may_end.set()
    late.join(LONG)

    assert "late" in closed_by
