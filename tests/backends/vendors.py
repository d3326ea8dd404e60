"""The databases that tests of the database backend run on, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from tests.backends.databases import database
from tests.django_site import mariadb, postgres


@contextmanager
def _sqlite(folder: Path) -> Iterator[None]:
    entry = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": folder / "suite.sqlite3",
        "OPTIONS": {"timeout": 60, "init_command": "PRAGMA journal_mode=WAL;"},
    }
    with database(entry):
        yield


@contextmanager
def _postgresql(folder: Path) -> Iterator[None]:
    with (
        postgres.serving() as address,
        database({"ENGINE": "django.db.backends.postgresql", **address}),
    ):
        yield


@contextmanager
def _mariadb(folder: Path) -> Iterator[None]:
    with (
        mariadb.serving() as address,
        database({"ENGINE": "django.db.backends.mysql", **address}),
    ):
        yield


VENDORS: Final[Mapping[str, Callable[[Path], AbstractContextManager[None]]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
}
