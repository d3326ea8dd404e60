from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.django_site.programs import Server, serving, threads_of
from tests.django_site.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="threads are counted in /proc: use Linux"
    ),
]

THREADS = ("--workers", "1", "--threads", "4")
DONE = re.compile(
    r"gomq_messages_processed_total\{.*clinic\.statistics.*success.*\} 3\.0"
)


def emit_three(server: Server) -> int:
    """Emit by requests, wait until all are handled, and return the worker's pid."""
    answers = [json.loads(server.get(f"/save?record={n}")) for n in (1, 2, 3)]
    assert {answer["state"] for answer in answers} == {"accepted"}
    wait_until(lambda: DONE.search(server.get("/gomq/metrics")), "three handled")
    return int(answers[0]["pid"])


def test_a_threaded_worker_handles_what_its_requests_emit_and_ends_in_order(
    tmp_path: Path,
) -> None:
    pytest.importorskip("gunicorn", reason="pip install gunicorn")

    with serving(tmp_path, *THREADS) as server:
        emit_three(server)
        status = server.terminate()

    assert status == 0
    assert "Traceback" not in (tmp_path / "gunicorn.log").read_text()


def test_with_preload_consumers_live_in_the_worker_and_not_in_the_master(
    tmp_path: Path,
) -> None:
    pytest.importorskip("gunicorn", reason="pip install gunicorn")

    with serving(tmp_path, *THREADS, "--preload") as server:
        master = server.process.pid
        before = threads_of(master)
        worker = emit_three(server)
        after = threads_of(master), threads_of(worker)
        status = server.terminate()

    assert worker != master
    assert before == after[0] == 1
    assert after[1] > 8
    assert status == 0
