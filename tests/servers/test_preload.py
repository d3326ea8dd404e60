from __future__ import annotations

from pathlib import Path

import pytest

from tests.django_site.waiting import wait_until
from tests.servers.asking import Ask
from tests.servers.configuration import Configuration
from tests.servers.conftest import skip_if_missing
from tests.servers.matrix import FORKED
from tests.servers.selection import rows
from tests.servers.serving import Server, serving

# Queues, channels, counts, timers, the worker: far fewer were not all of the bus.
MANY_LOCKS = 10


@pytest.mark.parametrize("row", rows(FORKED))
def test_a_worker_has_no_part_in_the_backlog_and_the_locks_of_its_parent(
    row: Configuration, tmp_path: Path
) -> None:
    skip_if_missing(row)
    environ = {"WARD_BACKLOG": "yes", "GOMQ_RUN": "here", "WARD_DRAIN_TIMEOUT": "1"}

    with serving(row, tmp_path, **environ) as server:
        workers = server.ask_all(Ask("emit", "slow", 1))
        wait_until(lambda: emitters(server) >= set(workers), "the workers")
        wait_until(lambda: server.noted("stuck"), "the backlog")
        notes = server.end().journal

    assert server.pid not in workers
    assert all(one.pid == one.emitter for one in notes)
    assert [one.pid for one in notes if one.what == "stuck"] == [server.pid]
    if row.needs != "uwsgi":  # it does not tell Python before it forks
        held = [one.number for one in notes if one.what == "fork"]
        assert len(held) >= row.workers
        assert min(held) > MANY_LOCKS


def emitters(server: Server) -> set[int]:
    return {one.emitter for one in server.noted("slow")}
