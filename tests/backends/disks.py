"""A small disk for a database of a test, which is filled and emptied."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.backends.databases import database
from tests.bus.waiting import wait_until
from tests.django_site import postgres

MEGABYTES: Final = 48
_HOW: Final = "to run it: as root, where that may mount a tmpfs"
_STEPS: Final = (1 << 20, 1 << 12, 1)


class Disk:
    """A disk of some megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no room for anybody."""
        with self._filler.open("ab", buffering=0) as file:
            for step in _STEPS:
                try:
                    while True:
                        file.write(b"x" * step)
                except OSError:
                    continue  # as much would not fit

    def make_room(self) -> None:
        """Undo that."""
        self._filler.unlink(missing_ok=True)
        wait_until(lambda: self._free() > MEGABYTES / 2)

    def _free(self) -> float:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize / (1 << 20)


@contextmanager
def mounted() -> Iterator[Disk]:
    """Have such a disk, for servers to write to. Skips the test where it cannot."""
    if not (postgres.is_root() and postgres.has_user()):
        pytest.skip(f"nobody else may mount a disk; {_HOW}")
    with postgres.folder_of_server("disk") as folder:
        owner = pwd.getpwnam("postgres")
        options = f"size={MEGABYTES}m,mode=0777,uid={owner.pw_uid},gid={owner.pw_gid}"
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{done.stderr.strip()}; {_HOW}")
        try:
            yield Disk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _sqlite(disk: Disk) -> Iterator[None]:
    entry = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": disk.folder / "suite.sqlite3",
        "OPTIONS": {"timeout": 60, "init_command": "PRAGMA journal_mode=WAL;"},
    }
    with database(entry):
        yield


@contextmanager
def _postgresql(disk: Disk) -> Iterator[None]:
    """Have its tables there, and not its log: without that the server would end."""
    with postgres.serving() as address:
        with _asking_postgresql(address) as connection:
            place = disk.folder / "space"
            place.mkdir()
            os.chown(place, disk.folder.stat().st_uid, -1)
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            connection.execute("ALTER DATABASE postgres SET default_tablespace = small")
        with database({"ENGINE": "django.db.backends.postgresql", **address}):
            yield


def _asking_postgresql(address: Mapping[str, Any]) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=address["HOST"],
        port=address["PORT"],
        user=address["USER"],
        dbname=address["NAME"],
        autocommit=True,
    )


VENDORS: Final[Mapping[str, Callable[[Disk], AbstractContextManager[None]]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}
"""Without MariaDB, whose InnoDB aborts the server where it cannot roll back a row that
found no room: that is a server that is away."""
