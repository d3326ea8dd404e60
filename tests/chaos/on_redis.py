"""Runs on Redis and Valkey; the rows of their events are in a file of SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from tests.backends.redis_servers import RedisServer, running
from tests.chaos.on_database import DatabaseTarget, sqlite_in
from tests.chaos.target import Target, uid_in


class RedisTarget(Target):
    """A server of streams, which can crash."""

    is_ordered = False
    deaths = 20  # the default of max_deliveries

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.database = sqlite_in(folder)
        self.url = f"redis://127.0.0.1:{server.port}/0"
        self._server = server

    def committed(self) -> frozenset[str]:
        return DatabaseTarget(self.database).committed()

    def left(self) -> Mapping[str, int]:
        waiting = pending = scheduled = 0
        with closing(self._server.client()) as client:
            for stream in client.scan_iter(match="{gomq}:[er]:*"):
                for group in client.xinfo_groups(stream):
                    # Its "lag" is unknown for a while after a crash.
                    after = b"(" + group["last-delivered-id"]
                    waiting += len(client.xrange(stream, min=after, count=1000))
                    pending += group["pending"]
            for later in client.scan_iter(match="{gomq}:later:*"):
                scheduled += client.zcard(later)
        return {"unread": waiting, "pending": pending, "scheduled": scheduled}

    def unended(self) -> int:
        return 0

    def dead_letters(self) -> Mapping[tuple[str, str], str]:
        found = {}
        with closing(self._server.client()) as client:
            for stream in client.scan_iter(match="{gomq}:d:*"):
                consumer = stream.decode().rpartition("chaos.")[2]
                for _, fields in client.xrange(stream):
                    error = msgspec.json.decode(fields[b"letter"])["error"]
                    found[consumer, uid_in(fields[b"event"])] = error
        # What a worker moves is in the table before it goes at the server.
        return found | dict(DatabaseTarget(self.database).dead_letters())

    @contextmanager
    def crashed(self) -> Iterator[None]:
        self._server.kill()
        try:
            yield
        finally:
            self._server.start()


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[Target]:
    """Have a server of this kind."""
    with running(kind) as server:
        yield RedisTarget(server, folder)
