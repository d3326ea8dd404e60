"""A private PostgreSQL server for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.absent import absent
from tests.ports import free_port

HOW = (
    "to run it: apt-get install postgresql (or put pg_ctl and initdb on PATH), "
    "pip install 'psycopg[binary]', and as root have a user 'postgres'"
)


class Server:
    """A server that can be stopped and started again, at the same address."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._port = free_port()

    @property
    def address(self) -> dict[str, object]:
        """How to reach it, as an entry of DATABASES says it."""
        return {
            "HOST": "127.0.0.1",
            "PORT": self._port,
            "USER": "gomq",
            "NAME": "postgres",
        }

    def make(self) -> None:
        """Make its files."""
        data = str(self._folder / "data")
        program = str(self._binaries / "initdb")
        run(program, "-D", data, "-U", "gomq", "-A", "trust", "-N")

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += f" -k {self._folder}"
        self._control("-l", str(self._folder / "log"), "-o", options, "start")

    def restart(self) -> None:
        """End every session as a crash would; returns when it is there again."""
        self._control("-l", str(self._folder / "log"), "-m", "immediate", "restart")

    def stop(self) -> None:
        """Stop it, as a crash would."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        data = str(self._folder / "data")
        run(str(self._binaries / "pg_ctl"), "-D", data, "-w", *words)


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((one for one in places if (one / "pg_ctl").exists()), None)


def as_other_user(*words: str) -> list[str]:
    if not is_root():
        return list(words)
    # The servers refuse to run as root.
    return [_runuser() or "runuser", "-u", "postgres", "--", *words]


def is_root() -> bool:
    """Whether servers have to be started as somebody else."""
    return os.geteuid() == 0


def _runuser() -> str | None:
    return shutil.which("runuser", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def has_user() -> bool:
    """Whether there is somebody else to start them as."""
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return _runuser() is not None


def run(*words: str) -> None:
    """Run a program to its end, not as root."""
    done = subprocess.run(
        as_other_user(*words), capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def folder_of_server(name: str) -> Iterator[Path]:
    """Make a folder that a server may write to, for a while."""
    folder = Path(tempfile.mkdtemp(prefix=f"gomq-{name}-"))
    if is_root():
        shutil.chown(folder, "postgres")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running() -> Iterator[Server]:
    """Run a fresh server. Skips the test where it cannot."""
    binaries = _binaries()
    if binaries is None or find_spec("psycopg") is None:
        absent(f"there is no PostgreSQL here; {HOW}")
    if is_root() and not has_user():
        absent(f"PostgreSQL does not run as root; {HOW}")
    with folder_of_server("postgres") as folder:
        server = Server(binaries, folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def serving() -> Iterator[dict[str, object]]:
    """Run a fresh server; yield how to reach it. Skips the test where it cannot."""
    with running() as server:
        yield server.address
