"""A private MariaDB server for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.absent import absent
from tests.django_site.postgres import (
    folder_of_server,
    has_user,
    is_root,
    run,
)
from tests.django_site.waiting import wait_until
from tests.ports import free_port

HOW = (
    "to run it: apt-get install mariadb-server, pip install PyMySQL, and as root have "
    "a user 'postgres'"
)


class Server:
    """A server that can be stopped and started again, at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> dict[str, Any]:
        """How to reach it, as an entry of DATABASES says it."""
        return {"HOST": "127.0.0.1", "PORT": self._port, "USER": "root", "NAME": "gomq"}

    def make(self) -> None:
        """Make its files."""
        run(
            _program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self._folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--tmpdir={self._folder}",
        )

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        command = [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={self._folder}/data",
            f"--socket={self._folder}/socket",
            f"--tmpdir={self._folder}",
            f"--port={self._port}",
            "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=64M",
        ]
        with (self._folder / "log").open("ab") as log:
            # Not by runuser, which stands between: it is killed by its own pid.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", **_as_other_user()
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        import pymysql

        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        connection = pymysql.connect(host="127.0.0.1", port=self._port, user="root")
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS gomq CHARACTER SET utf8mb4")
        return True

    def stop(self) -> None:
        """Stop it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _as_other_user() -> dict[str, Any]:
    if not is_root():
        return {}
    # The server refuses to run as root.
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or name


@contextmanager
def running() -> Iterator[Server]:
    """Run a fresh server. Skips the test where it cannot."""
    if not Path(_program("mariadbd")).exists() or find_spec("pymysql") is None:
        absent(f"there is no MariaDB here; {HOW}")
    if is_root() and not has_user():
        absent(f"MariaDB does not run as root; {HOW}")
    use_pymysql()
    with folder_of_server("mariadb") as folder:
        server = Server(folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def serving() -> Iterator[dict[str, Any]]:
    """Run a fresh server; yield how to reach it. Skips the test where it cannot."""
    with running() as server:
        yield server.address


def use_pymysql() -> None:
    """Have Django take PyMySQL for the driver it asks for."""
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)  # Django asks for mysqlclient's
    pymysql.install_as_MySQLdb()
