"""The messages of all processes as they are handled, for those who look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from django.db import connections

from django_gomq.backends.database.connection import DIALECTS
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.patterns import Pattern
from django_gomq.site import Site

from .samples import ALL, MAX_FILTERS, MessageFilter, Sample, ShownMessage
from .table import MESSAGE_TABLES, TABLES, database_of
from .viewing import WATCH_SECONDS, View

SHOWN_SECONDS: Final = 300.0
"""What was handled before is not shown, and is deleted."""
OVERLAP_SECONDS: Final = 5.0
"""So long a process may take to commit what it has written."""


class Tail:
    """Sampled messages of all processes, by Django's own connection.

    For one thread. Every method blocks, and raises what the database raises.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._now = DIALECTS[connections[alias].vendor].now
        self.view = View(alias)
        """What else processes tell."""
        self._since = 0.0
        self._seen: dict[tuple[int, int, float], float] = {}
        """When those were written that were returned, and may be read again."""

    def watch(self, wanted: MessageFilter) -> None:
        """Have processes sample what this matches for WATCH_SECONDS from now on.

        Where more than MAX_FILTERS are looked for, they sample of all messages.
        """
        self.view.watch()
        with connections[self._alias].cursor() as cursor:
            values = wanted.event, wanted.consumer, wanted.payload
            cursor.execute(
                f"UPDATE gomq_message_watch SET until = {self._now} + %s "
                "WHERE event = %s AND consumer = %s AND payload = %s",
                (WATCH_SECONDS, *values),
            )
            if cursor.rowcount:
                return
            self._delete_old(cursor)
            cursor.execute("SELECT count(*) FROM gomq_message_watch")
            ((count,),) = cursor.fetchall()
            of_all = MessageFilter(payload=wanted.payload)
            if count < MAX_FILTERS or wanted == of_all:  # two of them do no harm
                cursor.execute(
                    "INSERT INTO gomq_message_watch (event, consumer, payload, until) "
                    f"VALUES (%s, %s, %s, {self._now} + %s)",
                    (*values, WATCH_SECONDS),
                )
                return
        self.watch(of_all)

    def _delete_old(self, cursor: Any) -> None:
        """Delete who looks no more, and what processes that were killed have left."""
        cursor.execute(f"DELETE FROM gomq_message_watch WHERE until < {self._now}")
        cursor.execute(
            f"DELETE FROM gomq_message_sample WHERE written < {self._now} - %s",
            (SHOWN_SECONDS,),
        )

    def newest(self, wanted: MessageFilter, most: int) -> Sequence[ShownMessage]:
        """Return the latest that match, the newest first, with data where wanted."""
        found = self._read(wanted, SHOWN_SECONDS, f"ORDER BY written DESC LIMIT {most}")
        return sorted(found, key=lambda message: -message.sample.ended)

    def next(self, wanted: MessageFilter) -> Sequence[ShownMessage]:
        """Return those that match and were written since the last time, by their end.

        The first time none: they are of the time before somebody looked.
        """
        with connections[self._alias].cursor() as cursor:
            cursor.execute(f"SELECT {self._now}")
            now = float(cursor.fetchone()[0])
        is_first, self._since = not self._since, self._since or now
        seconds = now - self._since + OVERLAP_SECONDS
        found = self._read(wanted, seconds)
        fresh = [message for message in found if _key_of(message) not in self._seen]
        self._since = now
        for message in fresh:
            self._seen[_key_of(message)] = message.written
        oldest = now - 2 * OVERLAP_SECONDS
        self._seen = {key: at for key, at in self._seen.items() if at >= oldest}
        return (
            [] if is_first else sorted(fresh, key=lambda message: message.sample.ended)
        )

    def _read(
        self, wanted: MessageFilter, seconds: float, order: str = ""
    ) -> list[ShownMessage]:
        payload = "payload" if wanted.payload else "''"
        where, values = _where(wanted)
        with connections[self._alias].cursor() as cursor:
            cursor.execute(
                f"SELECT slot, place, written, sample, {payload} "
                f"FROM gomq_message_sample WHERE written > {self._now} - %s "
                f"{where} {order}",
                (seconds, *values),
            )
            return [
                ShownMessage(
                    slot=slot,
                    place=place,
                    written=float(written),
                    sample=msgspec.json.decode(sample, type=Sample),
                    payload=json.loads(data) if data else None,
                )
                for slot, place, written, sample, data in cursor.fetchall()
            ]


def _key_of(told: ShownMessage) -> tuple[int, int, float]:
    return told.slot, told.place, told.written


def _where(wanted: MessageFilter) -> tuple[str, list[Any]]:
    conditions, values, pattern = "", list[Any](), Pattern(wanted.event)
    if pattern.is_exact:
        conditions, values = "AND event = %s", [pattern.text]
    elif pattern.text != ALL:
        conditions = "AND substr(event, 1, %s) = %s"
        values = [len(pattern.prefix), pattern.prefix]
    if wanted.consumer:
        conditions += " AND consumer = %s"
        values.append(wanted.consumer)
    return conditions, values


def tail_of(site: Site) -> Tail:
    """Return the tail of a site's messages.

    Blocks; raises what the database raises, and ConfigurationError, which says what to
    do, where the database has no tables for them.
    """
    alias = database_of(site)
    connection = connections[alias]
    if connection.vendor not in DIALECTS:
        raise ConfigurationError(
            f"Messages of all processes are shown by tables of database {alias!r}, "
            f"which has the engine {connections.settings[alias]['ENGINE']}: "
            "PostgreSQL, MariaDB, MySQL and SQLite can have them."
        )
    if alias not in _migrated:
        found = connection.introspection.table_names()
        if not (TABLES | MESSAGE_TABLES).issubset(found):
            raise ConfigurationError(
                "Messages of all processes are shown by tables that database "
                f"{alias!r} does not have yet: run manage.py migrate gomq, and start "
                "the processes again that were running before."
            )
        _migrated.add(alias)
    return Tail(alias)


_migrated: Final[set[str]] = set()
"""Aliases of databases in which the tables were seen: a page asks all the time."""
