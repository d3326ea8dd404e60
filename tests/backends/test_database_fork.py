"""A forked child leaves the connections of its parent alone."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

from django.db import connections
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database.connection import OwnConnection
from django_gomq.bus.process.fork import current
from tests.backends.databases import ALIAS, execute


def _run_in_child(work: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        status = 0 if work() else 1
    except BaseException:  # noqa: BLE001 - told by the status
        status = 2
    os._exit(status)


def test_a_child_opens_a_connection_of_its_own(vendor: str) -> None:
    connection = OwnConnection(ALIAS, 30.0)
    before = _session(connection, vendor)

    def use_in_child() -> bool:
        current()
        differs = _session(connection, vendor) != before or vendor == "sqlite"
        connection.close()
        return differs

    assert _run_in_child(use_in_child) == 0
    assert _session(connection, vendor) == before  # it is not closed
    connection.close()


def test_a_child_that_collects_its_parents_connection_does_not_end_it(
    vendor: str,
) -> None:
    connections = [OwnConnection(ALIAS, 30.0)]
    before = _session(connections[0], vendor)

    def forget() -> bool:
        current()
        connections.clear()
        gc.collect()
        return True

    assert _run_in_child(forget) == 0
    assert _session(connections[0], vendor) == before
    connections[0].close()


def test_a_child_writes_though_its_parent_was_writing_when_it_forked(
    vendor: str,
) -> None:
    connections.close_all()
    parents, childs = OwnConnection(ALIAS, 30.0), OwnConnection(ALIAS, 30.0)
    is_writing, is_forking = threading.Event(), threading.Event()
    os.register_at_fork(before=is_forking.set)  # the last one is the first to run

    def write_until_fork(cursor: CursorWrapper) -> None:
        cursor.execute(WRITE)
        is_writing.set()
        is_forking.wait()
        cursor.execute(WRITE)

    thread = threading.Thread(target=lambda: parents.run(write_until_fork))
    thread.start()
    is_writing.wait()

    def write() -> bool:
        current()
        return childs.change(WRITE) == 1

    status = _run_in_child(write)
    thread.join()

    assert status == 0
    assert parents.change(WRITE) == 1  # nobody is kept out here
    for each in (parents, childs):
        each.close()
    execute("DELETE FROM gomq_spiller")


WRITE = "INSERT INTO gomq_spiller (name, heartbeat) VALUES ('x', 0)"
_SESSION = {
    "postgresql": "SELECT pg_backend_pid()",
    "mariadb": "SELECT connection_id()",
    "sqlite": "SELECT 1",
}


def _session(connection: OwnConnection, vendor: str) -> int:
    ((number,),) = connection.read(_SESSION[vendor])
    assert isinstance(number, int)
    return number
