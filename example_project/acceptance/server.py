"""A clinic of its own: a fresh database and a real server, gone when it is done."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from acceptance.scrape import get

PROJECT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 30
STOP_TIMEOUT = 20
"""Seconds for an orderly stop: longer than django-gomq's drain at the end."""
LOG_TAIL = 40


class ServerError(Exception):
    """The clinic did not start, or died; the text ends with the tail of its log."""


class Server:
    """One migrated SQLite file and gunicorn in front of it."""

    def __init__(self, port: int) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        var = PROJECT / "var"
        self._home = Path(tempfile.mkdtemp(prefix="demo-", dir=var))
        self.database = self._home / "clinic.sqlite3"
        self.access_log = self._home / "access.log"
        self._log = self._home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._migrate()
            self._process = self._spawn()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        dead, report = self._dead(), self._with_log("the server died")
        self.close()
        if isinstance(error, Exception) and dead:
            # The refused connection that the traffic saw is only what followed.
            raise ServerError(report) from error

    @property
    def pid(self) -> int:
        """The process that was started; its children serve."""
        if self._process is None:
            raise ServerError("the server was not started")
        return self._process.pid

    def _dead(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        """Stop the server in order, by force if it takes too long; remove its files."""
        try:
            if self._process is not None:
                _stop(self._process)
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def _migrate(self) -> None:
        done = subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=PROJECT,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"migrate failed\n{done.stderr}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        address = ["--bind", f"127.0.0.1:{self.port}"]
        command = [sys.executable, "-m", "gunicorn", *address]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then
            # stops the traffic first and the server last.
            return subprocess.Popen(
                [*command, "--access-logfile", str(self.access_log)],
                cwd=PROJECT,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CLINIC_DATABASE": str(self.database)}

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        reason: object = "not asked yet"
        while time.monotonic() < deadline:
            if self._dead():
                raise ServerError(self._with_log("the server died at its start"))
            try:
                get(self.url, "/gomq/readyz")
            except OSError as error:
                reason = error
            else:
                return
            time.sleep(0.1)
        raise ServerError(self._with_log(f"the server is not ready: {reason}"))

    def _with_log(self, reason: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([reason, *lines[-LOG_TAIL:]])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Reached by an impatient Ctrl-C as well: no server may outlive its demo.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port(preferred: int = 8000) -> int:
    """Return the preferred port if nothing listens there, any free one otherwise."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerError("no free port on 127.0.0.1")
