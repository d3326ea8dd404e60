"""Runs the durable site: commands to their end, and workers; it asserts little."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS, wait_until
from tests.management.commanding import command

SETTINGS = "tests.management.durable.settings"
_EMIT = """
import django, sys
django.setup()
from django_gomq import emit
for data in sys.argv[2:]:
    emit(sys.argv[1], data)
"""


class Worker:
    """A ``gomq worker``, or another process, that runs on."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has said this."""
        wait_until(lambda: self._has_said(text), f"{text!r} in {self._log}")

    def _has_said(self, text: str) -> bool:
        is_there = text in self.log
        assert is_there or self.process.poll() is None, self.log
        return is_there

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        self.send(number)
        return self.process.wait(SECONDS)


class DurableSite:
    """A folder with its database, and what its consumers noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.more: dict[str, str] = {}
        """More of the environment."""
        self.gomq_settings: dict[str, Any] = {}
        """More of the settings of ours."""

    def use_postgresql(self, address: Mapping[str, object]) -> None:
        """Have that in the place of the file."""
        entry = {"ENGINE": "django.db.backends.postgresql", **address}
        self.more["DURABLE_DATABASE"] = json.dumps(entry)

    def environment(self, **gomq: Any) -> dict[str, str]:
        site = {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "DURABLE_FOLDER": str(self.folder),
            "DURABLE_GOMQ": json.dumps({**self.gomq_settings, **gomq}),
        }
        return environment(**{**site, **self.more})

    def run(self, line: list[str], **gomq: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line,
            cwd=ROOT,
            env=self.environment(**gomq),
            capture_output=True,
            text=True,
            timeout=SECONDS * 2,
            check=False,
        )

    def gomq(self, *arguments: str, **gomq: Any) -> subprocess.CompletedProcess[str]:
        """Run a subcommand to its end, under these settings of ours."""
        return self.run(command(*arguments), **gomq)

    def migrate(self) -> None:
        done = self.run([sys.executable, "-m", "django", "migrate"])
        assert done.returncode == 0, done.stderr

    def set_up(self) -> None:
        """Make the tables, and record the consumers."""
        self.migrate()
        done = self.gomq("setup")
        assert done.returncode == 0, done.stderr

    def execute(self, statement: str, *values: object) -> list[Any]:
        """Execute a statement on the database beside the site; return its rows."""
        with closing(sqlite3.connect(self.folder / "site.sqlite3")) as connection:
            rows = connection.execute(statement, values).fetchall()
            connection.commit()
            return rows

    def leave_a_consumer(self, name: str) -> None:
        """Have a consumer recorded that the code does not have."""
        self.execute(
            "INSERT INTO gomq_consumer (name, types, ordered) VALUES (?, ?, 0)",
            name,
            '["job.asked"]',
        )

    def emit(self, event_type: str, *data: str) -> None:
        """Emit these, from a process of their own."""
        done = self.run([sys.executable, "-c", _EMIT, event_type, *data])
        assert done.returncode == 0, done.stderr

    @contextmanager
    def running(
        self,
        line: list[str],
        output: int | None = None,
        name: str = "log",
        **gomq: Any,
    ) -> Iterator[Worker]:
        """Run this, and let nothing of it live on; ``name`` is that of its log."""
        path = self.folder / name
        with path.open("wb") as log:
            process = subprocess.Popen(
                line,
                cwd=ROOT,
                env=self.environment(**gomq),
                stdout=log if output is None else output,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Worker(process, path)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextmanager
    def worker(self, *arguments: str, **gomq: Any) -> Iterator[Worker]:
        """Run a worker that has begun to work."""
        line = [sys.executable, "-m", "django", "gomq", "worker", *arguments]
        with self.running(line, **gomq) as worker:
            worker.wait_for("runs:")
            yield worker

    @property
    def notes(self) -> list[tuple[str, int]]:
        """What was noted, with the process that did."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [
            (text, int(pid))
            for text, _, pid in (line.rpartition(" ") for line in lines)
        ]

    def wait_for(self, *texts: str) -> None:
        """Wait until all of these were noted."""
        wait_until(lambda: set(texts) <= {text for text, _ in self.notes}, f"{texts}")
