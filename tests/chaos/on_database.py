"""Runs on the databases, each with the backend that keeps events there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.chaos.target import Target, uid_in
from tests.django_site import mariadb, postgres

_LOCK_SECONDS: Final = 1.0


class DatabaseTarget(Target):
    """A database that keeps rows and events."""

    deaths = 4

    def __init__(self, database: Mapping[str, Any]) -> None:
        self.database = database

    def committed(self) -> frozenset[str]:
        return frozenset(row[0] for row in self.rows("SELECT id FROM chaos_record"))

    def left(self) -> Mapping[str, int]:
        questions = {
            "in the outbox": "SELECT count(*) FROM gomq_outbox",
            "deliveries": "SELECT count(*) FROM gomq_delivery",
        }
        return {name: self.rows(text)[0][0] for name, text in questions.items()}

    def unended(self) -> int:
        question = "SELECT count(*) FROM gomq_process WHERE ended IS NULL"
        return int(self.rows(question)[0][0])

    def dead_letters(self) -> Mapping[tuple[str, str], str]:
        question = "SELECT consumer, error, envelope FROM gomq_dead_letter"
        return {
            (consumer.removeprefix("chaos."), uid_in(bytes(envelope))): error
            for consumer, error, envelope in self.rows(question)
        }

    def is_writable(self) -> bool:
        """Whether nobody has the lock that SQLite has for all who write."""
        if "sqlite" not in self.database["ENGINE"]:
            return True
        file = sqlite3.connect(self.database["NAME"], timeout=_LOCK_SECONDS)
        with closing(file):
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what the database answers."""
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _connect(self) -> Any:
        database = self.database
        if "sqlite" in database["ENGINE"]:
            return sqlite3.connect(database["NAME"], timeout=60)
        address = {
            "host": database["HOST"],
            "port": database["PORT"],
            "user": database["USER"],
        }
        if "postgresql" in database["ENGINE"]:
            import psycopg

            return psycopg.connect(dbname=database["NAME"], **address)
        import pymysql

        return pymysql.connect(database=database["NAME"], **address)


def sqlite_in(folder: Path) -> dict[str, Any]:
    """Return the entry of a file of SQLite, set up as docs/databases.md advises."""
    options = {
        "timeout": 60,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL;",
    }
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "chaos.sqlite3"),
        "OPTIONS": options,
    }


@contextmanager
def sqlite(folder: Path) -> Iterator[Target]:
    """Have a file of SQLite."""
    yield DatabaseTarget(sqlite_in(folder))


@contextmanager
def postgresql(folder: Path) -> Iterator[Target]:
    """Have a server of PostgreSQL."""
    with postgres.serving() as address:
        yield DatabaseTarget({"ENGINE": "django.db.backends.postgresql", **address})


@contextmanager
def mysql(folder: Path) -> Iterator[Target]:
    """Have a server of MariaDB."""
    with mariadb.serving() as address:
        yield DatabaseTarget({"ENGINE": "django.db.backends.mysql", **address})
