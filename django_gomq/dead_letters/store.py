"""The table as the store of dead letters of brokers that have no tables themselves."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from django.apps import apps
from django.db import IntegrityError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database.connection import (
    DIALECTS,
    Dialect,
    OwnConnection,
    is_of_text,
)
from django_gomq.backends.database.dead_letters import (
    SELECT,
    discard,
    in_ascii,
    numbers_of,
    read,
)
from django_gomq.bus.dead_letters import (
    DeadLetter,
    DeadLetterStore,
    HandOn,
    Keeping,
    NoStoreError,
)
from django_gomq.bus.errors import MessageError, PublishError
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.wire import encode_structured
from django_gomq.capturing import is_live, is_test_environment
from django_gomq.conf import Config
from django_gomq.site import brokers

logger = logging.getLogger("gomq.dead_letters")

T = TypeVar("T")

_TRIMS: Final = 20  # in the time that as many are written as are kept
_Row = tuple[str | int | float | bytes, ...]

TABLE: Final = "gomq_dead_letter"
UNREADABLE: Final = "_unknown"
"""The event type of what cannot be decoded."""
KEPT_STORED: Final = 10_000
"""Dead letters of one broker in the table, unless the site says."""
ANSWER_SECONDS: Final = 5.0
"""How long log lines wait for a database that does not answer."""

# Theirs have an event.
_OURS: Final = "broker = %s AND event_id IS NULL"
_INSERT: Final = (
    f"INSERT INTO {TABLE} (broker, consumer, message_id, trace_id, attempt, "
    "error_type, error, traceback, first_failed, failed, type, envelope) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, {now} - %s, {now} - %s, %s, %s)"
)


def _is_of_a_row(error: Exception) -> bool:
    """Whether something is wrong with one dead letter, and not with the database."""
    return is_of_text(error) or isinstance(error, (IntegrityError, ArithmeticError))


_names: Final = {alias: entry["NAME"] for alias, entry in connections.settings.items()}
"""Of the site's databases, before its tests have databases of their own."""


def database_of(
    dead_letters: Mapping[str, Any], databases: Mapping[str, str]
) -> str | None:
    """Return the alias of the database with the table, None if there is to be none.

    ``dead_letters`` is that part of the settings, ``databases`` has the aliases of
    those in which brokers keep their tables.
    """
    if "USING" in dead_letters:
        using: str | None = dead_letters["USING"]
        return using
    model = apps.get_model("gomq", "StoredDeadLetter")
    return next(iter(databases), None) or router.db_for_write(model)


def make_keeping(config: Config, databases: Mapping[str, str], source: str) -> Keeping:
    """Return how a site has dead letters kept that no server keeps.

    ``source`` is who the site is on the wire. Asks no database.
    """
    said = config.dead_letters
    store = TableStore(
        lambda: database_of(said, databases),
        source,
        said.get("KEEP_STORED", KEPT_STORED),
    )
    is_alone = said.get("USING", "") is None
    return Keeping(most=said.get("KEEP"), store=None if is_alone else store)


class TableStore(DeadLetterStore):
    """Keeps them in the table, by a connection that lives for one call.

    So no process holds one for what is rare. Thread-safe, also after a fork.
    """

    def __init__(
        self,
        find_alias: Callable[[], str | None],
        source: str,
        most: int = KEPT_STORED,
    ) -> None:
        """``most`` of each broker are kept, about: the oldest others are deleted."""
        self._find_alias = find_alias
        self._source = source
        self._most = most
        self._written = Counter[str]()
        self._told: set[str] = set()
        self._connection: OwnConnection | None = None
        self._is_there = False

    def keep(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """Keep these; return those that are no JSON, or that the database refuses."""
        rows, refused, now = [], [], time.time()
        for letter in letters:
            try:
                rows.append((letter, self._row_of(letter, now)))
            except MessageError:
                refused.append(letter)
        try:
            self._insert([row for _, row in rows])
        except Exception as error:
            if not _is_of_a_row(error):
                raise
            refused += [
                letter
                for letter, row in rows
                if not self._accepts(row)
                # The database's character set may lack what is in the error's text.
                and not self._accepts(self._row_of(in_ascii(letter), now))
            ]
        for broker, count in Counter(letter.broker for letter in letters).items():
            if _is_durable(broker):
                continue  # the server had them all, and nobody bounded them
            self._written[broker] += count
            if self._written[broker] * _TRIMS >= self._most:
                self._written[broker] = 0
                with suppress(Exception):  # they are written; the next call tries again
                    self._delete_oldest(broker)
        return refused

    def _delete_oldest(self, broker: str) -> None:
        """Bound what a consumer that always fails may write."""

        def step(cursor: CursorWrapper, dialect: Dialect) -> int:
            cursor.execute(
                f"SELECT id FROM {TABLE} WHERE {_OURS} "
                "ORDER BY id DESC LIMIT 1 OFFSET %s",
                (broker, self._most),
            )
            newest = cursor.fetchone()
            if newest is None:
                return 0
            cursor.execute(
                f"DELETE FROM {TABLE} WHERE {_OURS} AND replay_wanted = %s "
                "AND id <= %s",
                (broker, False, *newest),
            )
            return int(cursor.rowcount)

        if self._run(step) and broker not in self._told:
            self._told.add(broker)
            write_log(
                logger,
                logging.WARNING,
                "Broker %s has more than %d dead letters in the table, and the oldest "
                "are deleted: replay or discard them, or raise KEEP_STORED in "
                "GOMQ['DEAD_LETTERS']; this is said once",
                broker,
                self._most,
                fields={"gomq_broker": broker},
            )

    def _row_of(self, letter: DeadLetter, now: float) -> _Row:
        envelope = self._envelope_of(letter)
        # By the clock of the database: only distances are known here.
        return (
            *(letter.broker, letter.consumer, letter.message.id, letter.trace_id),
            *(letter.attempt, letter.error_type, letter.error, letter.traceback),
            *(now - letter.first_failed, now - letter.time),
            *(letter.message.type, envelope),
        )

    def _envelope_of(self, letter: DeadLetter) -> bytes:
        try:
            return encode_structured(letter.message, source=self._source)
        except MessageError:
            # What a server had and nobody could read: it is its body, as it came.
            if letter.message.type == UNREADABLE and _is_durable(letter.broker):
                return letter.message.body
            raise

    def _accepts(self, row: _Row) -> bool:
        try:
            self._insert([row])
        except Exception as error:
            if not _is_of_a_row(error):
                raise
            return False
        return True

    def _insert(self, rows: Sequence[_Row]) -> None:
        def step(cursor: CursorWrapper, dialect: Dialect) -> None:
            cursor.executemany(_INSERT.format(now=dialect.now), rows)

        if rows:
            self._run(step)

    def list(self, broker: str, limit: int) -> list[DeadLetter]:
        """Return the latest of a broker, oldest first."""

        def step(cursor: CursorWrapper, dialect: Dialect) -> list[DeadLetter]:
            cursor.execute(
                f"{SELECT} WHERE {_OURS} ORDER BY id DESC LIMIT %s", (broker, limit)
            )
            return [read(row) for row in reversed(cursor.fetchall())]

        return self._run(step)

    def page(self, broker: str, after: str, limit: int) -> Sequence[DeadLetter]:
        """Return the next of a broker behind that id, oldest first."""
        (number,) = numbers_of([after]) or (0,)

        def step(cursor: CursorWrapper, dialect: Dialect) -> Sequence[DeadLetter]:
            cursor.execute(
                f"{SELECT} WHERE {_OURS} AND id > %s ORDER BY id LIMIT %s",
                (broker, number, limit),
            )
            return [read(row) for row in cursor.fetchall()]

        return self._run(step)

    def wanted(self, broker: str) -> Sequence[str] | None:
        """Return the consumers for which somebody wants a replay, None without any."""

        def step(cursor: CursorWrapper, dialect: Dialect) -> Sequence[str] | None:
            cursor.execute(
                f"SELECT DISTINCT consumer FROM {TABLE} "
                f"WHERE {_OURS} AND replay_wanted = %s",
                (broker, True),
            )
            consumers = [consumer for (consumer,) in cursor.fetchall()]
            if consumers:
                return consumers
            cursor.execute(f"SELECT 1 FROM {TABLE} WHERE {_OURS} LIMIT 1", (broker,))
            return () if cursor.fetchone() else None

        return self._run(step)

    def take_wanted(
        self, broker: str, consumer: str, most: int
    ) -> Sequence[DeadLetter]:
        """Remove and return the oldest of those."""

        def step(cursor: CursorWrapper, dialect: Dialect) -> Sequence[DeadLetter]:
            cursor.execute(
                f"{SELECT} WHERE {_OURS} AND replay_wanted = %s AND consumer = %s "
                f"ORDER BY id LIMIT %s {dialect.lock}",
                (broker, True, consumer, most),
            )
            return _take(cursor, [read(row) for row in cursor.fetchall()])

        return self._run(step)

    def find(self, broker: str, ids: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Return the ids of these that are there, each with its consumer."""

        def step(cursor: CursorWrapper, dialect: Dialect) -> list[tuple[str, str]]:
            return [
                (letter.id, letter.consumer) for letter in _find(cursor, broker, ids)
            ]

        return self._run(step) if numbers_of(ids) else ()

    def take(self, broker: str, ids: Sequence[str]) -> Sequence[DeadLetter]:
        """Remove and return those of these that are there."""

        def step(cursor: CursorWrapper, dialect: Dialect) -> Sequence[DeadLetter]:
            return _take(cursor, _find(cursor, broker, ids))

        return self._run(step) if numbers_of(ids) else ()

    def hand_on(self, broker: str, ids: Sequence[str], hand: HandOn) -> int:
        """Have those of these handed on that are there, and delete what was taken."""
        numbers = numbers_of(ids)

        def step(cursor: CursorWrapper, dialect: Dialect) -> int:
            # A write first: it holds the rows against another who does the same.
            cursor.executemany(
                f"UPDATE {TABLE} SET attempt = attempt WHERE id = %s",
                [(number,) for number in numbers],
            )
            return len(_take(cursor, hand(_find(cursor, broker, ids))))

        return self._run(step) if numbers else 0

    def _run(self, step: Callable[[CursorWrapper, Dialect], T]) -> T:
        """Return what a step returns that runs in one transaction.

        Raises NoStoreError where the table is not there, and in tests whatever fails:
        they may not have the database that a process has.
        """
        alias = self._find_alias()
        if alias is None or not may_have_table(alias):
            raise NoStoreError
        connection = self._connection
        if connection is None:
            connection = self._connection = OwnConnection(alias, ANSWER_SECONDS)

        def run(cursor: CursorWrapper) -> T:
            if not self._is_there:
                names = cursor.db.introspection.table_names(cursor)
                if TABLE not in names:
                    raise NoStoreError
                self._is_there = True
            return step(cursor, connection.dialect)

        try:
            return connection.run(run)
        except Exception as error:
            is_told = _is_of_a_row(error) or isinstance(error, PublishError)
            if is_test_environment() and not is_told:
                raise NoStoreError from error
            raise
        finally:
            connection.close()


def _is_durable(broker: str) -> bool:
    """Whether its server kept them before they came here."""
    site = brokers.site
    known = site.capabilities.get(broker) if site is not None else None
    return known is not None and known.moves_dead_letters


def may_have_table(alias: str) -> bool:
    """Whether a look at this database is allowed, and could find anything."""
    connection = connections[alias]
    name = connection.settings_dict["NAME"]
    if connection.vendor not in DIALECTS:
        return False
    if connection.vendor == "sqlite":
        # One in memory would be another for us, or lock its test out; one that is no
        # file yet would be made by a look.
        text = str(name)
        is_file = "mode=memory" not in text and text != ":memory:"
        if not (is_file and (text.startswith("file:") or Path(text).exists())):
            return False
    return not is_test_environment() or (is_live() and _is_of_tests(connection))


def _is_of_tests(connection: BaseDatabaseWrapper) -> bool:
    """Whether it is not the site's own database, which tests without one still have."""
    names = connection.settings_dict
    name = names["NAME"]
    return bool(name != _names.get(connection.alias) or name == names["TEST"]["NAME"])


def _find(
    cursor: CursorWrapper, broker: str, ids: Sequence[str]
) -> Sequence[DeadLetter]:
    numbers = numbers_of(ids)
    marks = ", ".join(["%s"] * len(numbers))
    cursor.execute(
        f"{SELECT} WHERE {_OURS} AND id IN ({marks}) ORDER BY id", (broker, *numbers)
    )
    return [read(row) for row in cursor.fetchall()]


def _take(cursor: CursorWrapper, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
    """Return those that nobody else has deleted."""
    return [letter for letter in letters if discard(cursor, numbers_of([letter.id]))]
