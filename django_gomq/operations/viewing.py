"""What those who look read in the tables that processes write, and write there."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.db import IntegrityError, connections, transaction

from django_gomq.backends.database.connection import DIALECTS
from django_gomq.site import Site

from .moments import Counted, Holds, Key, Tick
from .table import FREE_SECONDS, TABLES, database_of

WATCH_SECONDS: Final = 15.0
"""So long processes tell more after somebody has looked."""
ALIVE_SECONDS: Final = 25.0
"""A process that nobody looks at tells every ten seconds that it lives; on SQLite every
two minutes, so that the first look at an idle site shows it a few seconds late."""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """How an operator wants a consumer to be in every process; None: as it is."""

    paused: bool | None = None
    capacity: int | None = None
    changed_by: str = ""
    """Who said so last; empty where that is not known."""
    changed: float = 0.0
    """When, in seconds since 1970."""


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """A process that lives, and what it told last."""

    slot: int
    host: str
    pid: int
    role: str
    up_seconds: float
    seen_seconds: float
    """How long ago it last told."""
    holds: Holds
    now: float
    """By the clock of the database."""


class View:
    """The tables as one database has them, by Django's own connection.

    For one thread. Every method blocks, and raises what the database raises.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._now = DIALECTS[connections[alias].vendor].now

    def processes(self) -> Sequence[ProcessReport]:
        """Return those that live, the oldest first."""
        rows = self._read(
            f"SELECT id, host, pid, role, {self._now} - started, "
            f"{self._now} - heartbeat, holds, {self._now} FROM gomq_site_process "
            f"WHERE ended IS NULL AND heartbeat > {self._now} - %s ORDER BY started",
            (ALIVE_SECONDS,),
        )
        return [
            ProcessReport(
                slot=slot,
                host=host,
                pid=pid,
                role=role,
                up_seconds=float(up),
                seen_seconds=max(0.0, float(seen)),
                holds=msgspec.json.decode(holds, type=Holds),
                now=float(now),
            )
            for slot, host, pid, role, up, seen, holds, now in rows
        ]

    def count_silent(self) -> int:
        """Return how many may live, and have not told lately; or they were killed."""
        ((count,),) = self._read(
            "SELECT count(*) FROM gomq_site_process WHERE ended IS NULL "
            f"AND heartbeat <= {self._now} - %s AND heartbeat > {self._now} - %s",
            (ALIVE_SECONDS, FREE_SECONDS),
        )
        return int(count)

    def ticks_written_since(
        self, moment: float, seen: Container[tuple[int, float]] = ()
    ) -> Iterator[tuple[float, Tick]]:
        """Yield ticks, with when each was written, by the clock of the database.

        Those whose slot and end are in ``seen`` are left out.
        """
        rows = self._read(
            "SELECT slot, ended, seconds, counted, written FROM gomq_tick "
            "WHERE written > %s ORDER BY written",
            (moment,),
        )
        for slot, ended, seconds, counted, written in rows:
            if (slot, float(ended)) in seen:
                continue
            yield (
                float(written),
                Tick(
                    slot=slot,
                    ended=float(ended),
                    seconds=float(seconds),
                    counted=msgspec.json.decode(counted, type=Counted),
                ),
            )

    def desired(self) -> Mapping[Key, Desired]:
        """Return how operators want consumers to be, by broker and name."""
        rows = self._read(
            "SELECT broker, consumer, paused, capacity, changed_by, changed "
            "FROM gomq_desired"
        )
        return {
            (broker, consumer): Desired(
                paused=None if paused is None else bool(paused),
                capacity=capacity,
                changed_by=changed_by,
                changed=float(changed),
            )
            for broker, consumer, paused, capacity, changed_by, changed in rows
        }

    def watch(self) -> None:
        """Have processes tell more, and sooner, for WATCH_SECONDS."""
        with connections[self._alias].cursor() as cursor:
            cursor.execute(
                f"UPDATE gomq_watch SET until = {self._now} + %s", (WATCH_SECONDS,)
            )
            if not cursor.rowcount:  # two of them do no harm
                cursor.execute(
                    f"INSERT INTO gomq_watch (until) VALUES ({self._now} + %s)",
                    (WATCH_SECONDS,),
                )

    def desire(self, key: Key, desired: Desired) -> None:
        """Keep how a consumer is to be; what is None stays as it was wanted."""
        values = (desired.paused, desired.capacity, desired.changed_by, *key)
        if self._change_desired(values):
            return
        try:
            with transaction.atomic(using=self._alias):
                self._insert_desired(values)
        except IntegrityError:
            if not self._change_desired(values):  # another operator was not first
                raise

    def _change_desired(self, values: tuple[Any, ...]) -> int:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(
                "UPDATE gomq_desired SET paused = COALESCE(%s, paused), "
                "capacity = COALESCE(%s, capacity), changed_by = %s, "
                f"changed = {self._now} WHERE broker = %s AND consumer = %s",
                values,
            )
            return int(cursor.rowcount)

    def _insert_desired(self, values: tuple[Any, ...]) -> None:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(
                "INSERT INTO gomq_desired "
                "(paused, capacity, changed_by, broker, consumer, changed) "
                f"VALUES (%s, %s, %s, %s, %s, {self._now})",
                values,
            )

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())


def view_of(site: Site) -> View | None:
    """Return the tables of a site, None where the migrations were not applied.

    Blocks; raises what the database raises.
    """
    alias = database_of(site)
    connection = connections[alias]
    if connection.vendor not in DIALECTS:
        return None
    if alias not in _migrated and TABLES.issubset(
        connection.introspection.table_names()
    ):
        _migrated.add(alias)
    return View(alias) if alias in _migrated else None


_migrated: Final[set[str]] = set()
"""Aliases of databases in which the tables were seen: a page asks all the time."""
