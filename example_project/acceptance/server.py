"""A clinic of its own: a fresh database and real processes, gone when it is done."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, get_args

from acceptance import redis_server
from acceptance.ports import ServerError, checked_port, free_port
from acceptance.scrape import get

PROJECT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 120
STOP_TIMEOUT = 20
"""Seconds for an orderly stop: longer than django-gomq's drain at the end."""
LOG_TAIL = 40

Backend = Literal["memory", "database", "redis"]
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)


class Login(NamedTuple):
    """Who may log in, and how."""

    name: str
    password: str


class Server:
    """One migrated SQLite file, gunicorn in front of it, and a worker behind it.

    The worker is there where the database or Redis keeps events (``backend``).
    """

    def __init__(self, port: int, *, backend: Backend = "memory") -> None:
        self.backend = backend
        """What CLINIC_BACKEND is."""
        self._site: dict[str, str] = {
            "CLINIC_BACKEND": backend,
            # There are people who log in: what their cookies rest on is no default.
            "CLINIC_SECRET_KEY": secrets.token_urlsafe(50),
        }
        self._rest = contextlib.ExitStack()
        self.port = checked_port(port) if port else free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        var = PROJECT / "var"
        self._home = Path(tempfile.mkdtemp(prefix="demo-", dir=var))
        self._rest.callback(shutil.rmtree, self._home, ignore_errors=True)
        self.database = self._home / "clinic.sqlite3"
        self.access_log = self._home / "access.log"
        self._log = self._home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self.processes = [self.url]
        """Where each process has its numbers."""

    def __enter__(self) -> Self:
        try:
            if self.backend == "redis":
                self._site |= self._rest.enter_context(redis_server.serving(self._home))
            self.manage("migrate", "--verbosity", "0")
            self._process = self._spawn(
                "-m",
                "gunicorn",
                *("--bind", f"127.0.0.1:{self.port}"),
                *("--access-logfile", str(self.access_log)),
            )
            self._wait_until_ready(self.url)
            if self.backend != "memory":
                self._start_worker()
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

    def add_user(self) -> Login:
        """Add a superuser with a random password to this clinic's own database."""
        login = Login("demo", secrets.token_urlsafe(9))
        self.manage(
            *("createsuperuser", "--noinput", "--email", ""),
            *("--username", login.name),
            DJANGO_SUPERUSER_PASSWORD=login.password,
        )
        return login

    def _dead(self) -> bool:
        started = (self._process, self._worker)
        return any(one is not None and one.poll() is not None for one in started)

    def close(self) -> None:
        """Stop the server in order, by force if it takes too long; remove its files."""
        try:
            for process in (self._process, self._worker):
                if process is not None:
                    _stop(process)
        finally:
            self._rest.close()

    def _start_worker(self) -> None:
        self.manage("gomq", "setup")
        address = f"127.0.0.1:{free_port(0)}"
        self._worker = self._spawn(
            "manage.py", "gomq", "worker", "--metrics-addr", address
        )
        url = f"http://{address}"
        self._wait_until_ready(url)
        self.processes.append(url)

    def manage(self, *arguments: str, **environ: str) -> None:
        """Run one command of the site. Raises ServerError."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env={**self._environment(), **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{' '.join(arguments)} failed\n{done.stderr}")

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then
            # stops the traffic first and the server last.
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=PROJECT,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        site = {"CLINIC_DATABASE": str(self.database), **self._site}
        return {**os.environ, **site}

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        reason: object = "not asked yet"
        while time.monotonic() < deadline:
            if self._dead():
                raise ServerError(self._with_log("the server died at its start"))
            try:
                get(url, "/gomq/readyz")
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
