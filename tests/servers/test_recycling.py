from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import pytest

from tests.django_site.waiting import wait_until
from tests.servers import processes
from tests.servers.asking import Ask
from tests.servers.configuration import Configuration
from tests.servers.conftest import skip_if_missing
from tests.servers.matrix import RECYCLED
from tests.servers.observing import QUEUED, drains_in, handled_by
from tests.servers.selection import rows
from tests.servers.serving import Server, serving


@pytest.mark.parametrize("row", rows(RECYCLED))
def test_a_recycled_worker_drains_what_its_requests_emitted(
    row: Configuration, tmp_path: Path
) -> None:
    skip_if_missing(row)

    with serving(row, tmp_path) as server:
        emitter = server.emit("slow", QUEUED)
        wait_until(lambda: is_recycled(server, emitter["pid"]), "another worker")
        answer = server.ask(Ask())
        ending = server.end()

    assert handled_by(ending, emitter["pid"]) == list(range(1, QUEUED + 1))
    assert answer["pid"] != emitter["pid"]
    (drain,) = [one for one in drains_in(ending.log) if one.pid == emitter["pid"]]
    assert (drain.trigger, drain.left) == (row.trigger, 0)
    assert "Traceback" not in ending.log


def is_recycled(server: Server, worker: int) -> bool:
    """Ask once more; tell whether the worker has seen enough, and is gone."""
    try:
        server.ask(Ask())
    except (OSError, HTTPException):
        pass  # it left while we asked
    return not processes.is_alive(worker)
