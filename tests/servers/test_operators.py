"""What an operator wants is so in every process, also in one that starts later."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import wait_until
from tests.servers import processes
from tests.servers.asking import Ask
from tests.servers.conftest import skip_if_missing
from tests.servers.matrix import gunicorn
from tests.servers.serving import Server, serving

TWO_WORKERS = gunicorn(workers=2)
# As a command counts them, with time to spare until it does.
RUNNING = "ended IS NULL AND heartbeat > (julianday('now') - 2440587.5) * 86400 - 25"


def manage(folder: Path, *words: str) -> str:
    """Run the ward's command line; return what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers.ward.manage", *words],
        cwd=ROOT,
        env=environment(
            DJANGO_SETTINGS_MODULE="tests.servers.ward.settings",
            WARD_FOLDER=str(folder),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def two_workers(folder: Path, **environ: str) -> Iterator[Server]:
    """Serve the ward, migrated, by two processes that have both begun to emit."""
    skip_if_missing(TWO_WORKERS)
    manage(folder, "migrate", "--verbosity", "0")
    # A start waits for the first look, and on a busy machine that takes longer.
    site = {"WARD_FIRST_LOOK_SECONDS": "60", **environ}
    with serving(TWO_WORKERS, folder, **site) as server:
        emit_in_all(server)
        wait_until(lambda: handled(server) == emitted(server), "the first rounds")
        wait_until(lambda: told(folder) == 2, "both in the table of processes")
        yield server


def told(folder: Path, condition: str = "true") -> int:
    """Return how many processes have told of themselves so far."""
    with closing(sqlite3.connect(folder / "db.sqlite3", timeout=60)) as connection:
        count = f"SELECT count(*) FROM gomq_site_process WHERE {condition}"
        row = connection.execute(count).fetchone()
        return int(row[0])


def emit_in_all(server: Server) -> set[int]:
    """Have each worker emit one round; return their pids."""
    return set(server.ask_all(Ask("emit", "slow", 1)))


def reached(text: str) -> tuple[int, int]:
    """Return in how many of how many processes a command says that it is so."""
    found = re.search(r"in (\d+) of (\d+) process", text)
    assert found, text
    return int(found[1]), int(found[2])


def handled(server: Server) -> int:
    return len(server.noted("slow"))


def emitted(server: Server) -> int:
    """Count the rounds of workers; a migration emits twenty, which nobody handles."""
    return sum(note.number == 1 for note in server.noted("asked"))


def test_a_pause_reaches_all_processes_and_a_resume_ends_it(tmp_path: Path) -> None:
    with two_workers(tmp_path) as server:
        paused = manage(tmp_path, "gomq", "pause", "ward.slow")
        assert reached(paused) == (2, 2)
        before = handled(server)

        emit_in_all(server)
        again = manage(tmp_path, "gomq", "pause", "ward.slow")

        assert reached(again) == (2, 2)
        assert handled(server) == before < emitted(server)
        resumed = manage(tmp_path, "gomq", "resume", "ward.slow")
        assert reached(resumed) == (2, 2)
        wait_until(lambda: handled(server) == emitted(server), "what was paused")


def test_a_recycled_worker_stays_paused(tmp_path: Path) -> None:
    with two_workers(tmp_path) as server:
        manage(tmp_path, "gomq", "pause", "ward.slow")
        before = handled(server)
        old, *_ = sorted({note.pid for note in server.noted("slow")})

        os.kill(old, signal.SIGTERM)
        wait_until(lambda: not processes.is_alive(old), "the end of a worker")
        emit_in_all(server)
        wait_until(lambda: told(tmp_path) == 3, "the new one in the table")
        wait_until(lambda: told(tmp_path, RUNNING) == 2, "the end of the old one")
        again = manage(tmp_path, "gomq", "pause", "ward.slow")

        assert reached(again) == (2, 2)
        assert handled(server) == before < emitted(server)
        manage(tmp_path, "gomq", "resume", "ward.slow")
        wait_until(lambda: handled(server) == emitted(server), "what was paused")


def test_another_capacity_is_that_of_every_process(tmp_path: Path) -> None:
    with two_workers(tmp_path):
        resized = manage(tmp_path, "gomq", "resize", "ward.slow", "7")

        assert reached(resized) == (2, 2)
