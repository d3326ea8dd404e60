"""Starts and ends ``gomq worker`` on the database of a test; it asserts little."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from django.db import connections

from django_gomq.bus.message import Message
from django_gomq.testing.conformance.site import Site, wait_until
from tests.backends.databases import ALIAS, execute
from tests.backends.workers import LEASE
from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS


class Note(msgspec.Struct, frozen=True):
    """One thing that a handler wrote down."""

    kind: str
    number: int
    attempt: int
    pid: int


class Worker:
    """A worker that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def drain(self) -> None:
        """Have it stop in order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0, self.log

    def stop(self) -> None:
        """Let it do nothing; returns when all its threads stand still.

        And none of them keeps the others from writing.
        """
        while True:
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
            if _is_writable():
                return
            self.go_on()
            wait_until(_is_writable)

    def outlive(self) -> None:
        """Let so much time pass, for the database, that its lease is over."""
        execute(
            "UPDATE gomq_process SET heartbeat = heartbeat - %s WHERE pid = %s",
            1.2 * LEASE,
            self.process.pid,
        )

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def _is_writable() -> bool:
    """Whether somebody else may write: on SQLite nobody while a transaction does."""
    database = connections.databases[ALIAS]
    if not database["ENGINE"].endswith("sqlite3"):
        return True
    path = database["NAME"]
    with closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)) as own:
        try:
            own.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


class WorkerSite:
    """A folder with what workers note, and a publisher of its own."""

    def __init__(self, folder: Path, processes: Site) -> None:
        self._folder = folder
        self._publisher = processes.process(may_start=lambda: False)
        self._started = 0
        self.lease = LEASE
        """That of the workers that are started."""

    def _environment(self) -> dict[str, str]:
        database = connections.databases[ALIAS]
        wanted = {
            name: database[name]
            for name in ("ENGINE", "NAME", "HOST", "PORT", "USER", "OPTIONS")
            if name in database
        }
        return environment(
            DJANGO_SETTINGS_MODULE="tests.backends.workers.settings",
            WORKERS_DATABASE=json.dumps(wanted, default=str),
            WORKERS_FOLDER=str(self._folder),
            WORKERS_LEASE=str(self.lease),
        )

    def set_up(self) -> None:
        """Record the consumers."""
        command = [sys.executable, "-m", "django", "gomq", "setup"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @contextmanager
    def worker(self, *options: str) -> Iterator[Worker]:
        """Run a worker, and let it not live on."""
        self._started += 1
        path = self._folder / f"log {self._started}"
        command = [sys.executable, "-m", "django", "gomq", "worker", *options]
        with path.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Worker(process, path)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and its children
            process.wait()

    def emit(self, event_type: str, *data: dict[str, Any]) -> None:
        """Publish these, in this order."""
        messages: list[Message[Any]] = [
            Message(event_type, msgspec.json.encode(one)) for one in data
        ]
        assert self._publisher.broker.publish_many(messages) == [None] * len(data)

    def touch(self, name: str) -> None:
        """Make the file that handlers wait for."""
        (self._folder / name).touch()

    @property
    def notes(self) -> list[Note]:
        """What all handlers wrote down, in its order."""
        path = self._folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for kind, *numbers in map(str.split, lines):
            found.append(Note(kind, *map(int, numbers)))
        return found

    def numbers(self, kind: str) -> list[int]:
        """The numbers of the messages of which that was written down."""
        return [note.number for note in self.notes if note.kind == kind]

    def numbers_of(self, worker: Worker) -> list[int]:
        """The numbers of the messages that this worker began to handle."""
        pid = worker.process.pid
        return [
            note.number
            for note in self.notes
            if note.kind == "begun" and note.pid == pid
        ]

    def wait_until_done(self) -> None:
        """Wait until nothing is left to do."""
        for table in ("gomq_outbox", "gomq_delivery"):
            wait_until(lambda: not execute(f"SELECT 1 FROM {table} LIMIT 1"))  # noqa: B023
