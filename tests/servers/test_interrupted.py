"""Exceptions that servers raise by signals in whatever emits too long."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.error import HTTPError

import pytest

from tests.django_site.waiting import wait_until
from tests.servers import processes
from tests.servers.asking import Ask
from tests.servers.configuration import Configuration
from tests.servers.conftest import skip_if_missing
from tests.servers.matrix import celery, gunicorn
from tests.servers.observing import drains_in
from tests.servers.selection import rows
from tests.servers.serving import Server, serving
from tests.servers.ward.journal import Note
from tests.servers.ward.rounds import LAST_ROUNDS

# It is loaded before the fork, as a worker that starts slowly would be aborted too.
ABORTING: Final = gunicorn(
    "--timeout 10 --preload --config python:tests.servers.ward.aborting",
    is_representative=True,
)
LIMITING: Final = celery(workers=1)

CAPACITY: Final = 5000
STORM: Final = {
    "WARD_CAPACITY": str(CAPACITY),
    "WARD_DRAIN_TIMEOUT": "60",
    # Not measured: what is raised in coverage's own code leaves a lock held.
    "COVERAGE_PROCESS_START": "",
    "COVERAGE_PROCESS_CONFIG": "",
}
SIGNALS: Final = 12
LIMITS: Final = 2


def numbers_of(notes: Sequence[Note], what: str) -> list[int]:
    return [one.number for one in notes if one.what == what]


def check_books(
    notes: Sequence[Note], *, storms: int, also: Sequence[int] = ()
) -> None:
    """Each event that was accepted was handled once, and no other one was."""
    handled = numbers_of(notes, "fast")
    accepted = {*numbers_of(notes, "accepted"), *also}
    at_hand = numbers_of(notes, "at_hand")
    assert len(at_hand) == storms
    assert accepted
    assert len(handled) == len(set(handled)), "an event was handled twice"
    assert accepted <= set(handled), "an event was lost"
    # An emit that could not return its receipt was whole, or was not at all.
    assert set(handled) <= accepted.union(at_hand)


def read_books(server: Server, pid: int) -> list[Note]:
    """Return what was noted of a process's events, and that nobody else had them."""
    notes = server.noted("fast", "accepted", "at_hand", "slow")
    own = [one for one in notes if one.emitter == pid]
    assert {one.pid for one in own} == {pid}
    return own


def have_handled(server: Server, pid: int) -> bool:
    return pid in {one.pid for one in server.noted("slow")}


@pytest.mark.parametrize("row", rows([ABORTING]))
def test_a_request_that_gunicorn_aborts_loses_nothing_of_what_it_emitted(
    row: Configuration, tmp_path: Path
) -> None:
    skip_if_missing(row)

    with serving(row, tmp_path, **STORM) as server:
        worker = server.ask(Ask())["pid"]
        with pytest.raises(HTTPError, match="500"):
            server.ask(Ask("emit_for_ever"))
        wait_until(lambda: not processes.is_alive(worker), "the worker's end")
        answer = server.emit("slow", 1)
        wait_until(lambda: have_handled(server, answer["pid"]), "the next worker")
        notes = read_books(server, worker)
        log = server.end().log

    assert answer["pid"] != worker
    check_books(notes, storms=1)
    assert len(numbers_of(notes, "slow")) == LAST_ROUNDS
    (drain,) = [one for one in drains_in(log) if one.pid == worker]
    assert (drain.trigger, drain.left) == (row.trigger, 0)


def end_by_signal(server: Server, child: int) -> None:
    """Do as Celery does, which looks only once a second whose limit is over."""
    from celery.exceptions import SoftTimeLimitExceeded

    storms = len(server.noted("storm"))
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(server.ask, Ask("emit_for_ever"))
        wait_until(lambda: len(server.noted("storm")) > storms, "the task")
        os.kill(child, signal.SIGUSR1)
        with pytest.raises(SoftTimeLimitExceeded):
            task.result()


def end_by_limit(server: Server) -> None:
    from celery.exceptions import SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        server.ask(Ask("emit_for_ever", limit=0.1))


def room_in(server: Server) -> int:
    return server.ask(Ask("look"))["room"]


@pytest.mark.parametrize("row", rows([LIMITING]))
def test_tasks_that_celery_ends_by_a_time_limit_lose_no_event_and_no_room(
    row: Configuration, tmp_path: Path
) -> None:
    skip_if_missing(row)

    with serving(row, tmp_path, **STORM, WARD_SLOW_SECONDS="0.01") as server:
        child = server.ask(Ask())["pid"]
        for _ in range(SIGNALS):
            end_by_signal(server, child)
        for _ in range(LIMITS):
            end_by_limit(server)
        wait_until(lambda: room_in(server) == CAPACITY, "the whole room")
        before, after = server.ask(Ask()), server.emit("fast", 1)
        log = server.end().log
        notes = read_books(server, child)

    assert after["emitted"] == before["emitted"] + 1
    check_books(notes, storms=SIGNALS + LIMITS, also=[after["emitted"]])
    assert [(one.pid, one.trigger, one.left) for one in drains_in(log)] == [
        (child, row.trigger, 0)
    ]
