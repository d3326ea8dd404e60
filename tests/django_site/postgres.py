"""A private PostgreSQL server for tests; it knows no Django."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

HOW = (
    "to run it: apt-get install postgresql (or put pg_ctl and initdb on PATH), "
    "pip install 'psycopg[binary]', and as root have a user 'postgres'"
)


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((one for one in places if (one / "pg_ctl").exists()), None)


def _command(*words: str) -> list[str]:
    if not _is_root():
        return list(words)
    # The server refuses to run as root.
    return [_runuser() or "runuser", "-u", "postgres", "--", *words]


def _is_root() -> bool:
    return os.geteuid() == 0


def _runuser() -> str | None:
    return shutil.which("runuser", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _has_user() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return _runuser() is not None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(*words: str) -> None:
    done = subprocess.run(
        _command(*words), capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def serving() -> Iterator[dict[str, object]]:
    """Run a fresh server; yield how to reach it. Skips the test where it cannot."""
    binaries = _binaries()
    if binaries is None or find_spec("psycopg") is None:
        pytest.skip(f"there is no PostgreSQL here; {HOW}")
    if _is_root() and not _has_user():
        pytest.skip(f"PostgreSQL does not run as root; {HOW}")
    folder = Path(tempfile.mkdtemp(prefix="gomq-postgres-"))
    if _is_root():
        shutil.chown(folder, "postgres")
    data, port = str(folder / "data"), _free_port()
    control = str(binaries / "pg_ctl")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
    log = str(folder / "log")
    _run(str(binaries / "initdb"), "-D", data, "-U", "gomq", "-A", "trust", "-N")
    _run(control, "-D", data, "-w", "-l", log, "-o", options, "start")
    try:
        yield {"HOST": "127.0.0.1", "PORT": port, "USER": "gomq", "NAME": "postgres"}
    finally:
        _run(control, "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
