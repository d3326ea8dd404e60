"""A private PgBouncer in front of a PostgreSQL server for tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.absent import absent
from tests.django_site.postgres import (
    folder_of_server,
    has_user,
    is_root,
    run,
)
from tests.django_site.waiting import wait_until
from tests.ports import free_port

HOW = "apt-get install pgbouncer, and as root have a user 'postgres'"

CONFIGURATION = """\
[databases]
* = host={host} port={server} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_login_retry = 0.1
logfile = {folder}/log
pidfile = {folder}/pid
"""


class Bouncer:
    """A pooler between clients and a server."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.port = free_port()

    def configure(self, server: Mapping[str, object], mode: str, size: int) -> None:
        """Write its configuration."""
        text = CONFIGURATION.format(
            folder=self._folder,
            host=server["HOST"],
            server=server["PORT"],
            user=server["USER"],
            port=self.port,
            mode=mode,
            size=size,
        )
        (self._folder / "ini").write_text(text)

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        run(self._program, "-q", "-d", str(self._folder / "ini"))
        wait_until(self._listens, "PgBouncer to listen")

    def stop(self) -> None:
        """End it at once, and every session with it."""
        pid = self._folder / "pid"
        os.kill(int(pid.read_text()), signal.SIGKILL)
        pid.unlink()
        wait_until(lambda: not self._listens(), "PgBouncer to end")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def bouncing(
    server: Mapping[str, object], mode: str, size: int = 20
) -> Iterator[Bouncer]:
    """Run a pooler of this ``pool_mode``. Skips the test where it cannot."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or (is_root() and not has_user()):
        absent(f"there is no PgBouncer here; to run it: {HOW}")
    with folder_of_server("pgbouncer") as folder:
        bouncer = Bouncer(program, folder)
        bouncer.configure(server, mode, size)
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.stop()
