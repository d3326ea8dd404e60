"""The tables by which processes tell what they do, and learn what operators want."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from django.apps import apps
from django.db import router
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database.connection import OwnConnection
from django_gomq.bus.backend import ConsumerState
from django_gomq.site import Site

from .moments import Holds, Key, Tick
from .samples import MAX_FILTERS, RING, MessageFilter, Sample

ANSWER_SECONDS: Final = 5.0
"""So long the database is waited for, on a thread that nobody else needs."""
PLACES: Final = 150
"""Ticks of one process: two seconds each, five minutes together."""
FREE_SECONDS: Final = 330.0
"""A slot is another's when the process was last seen so long ago: ticks of it are
older than anybody looks at."""
TABLES: Final = frozenset(
    {"gomq_desired", "gomq_site_process", "gomq_tick", "gomq_watch"}
)

MESSAGE_TABLES: Final = frozenset({"gomq_message_sample", "gomq_message_watch"})


def database_of(site: Site) -> str:
    """Return the alias of the database that has these tables, if one has."""
    model = apps.get_model("gomq", "Consumer")
    return next(iter(site.databases), None) or router.db_for_write(model)


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a process learns by one look."""

    now: float
    """By the clock of the database."""
    desired: Mapping[Key, ConsumerState]
    is_watched: bool
    """Whether somebody looks at what processes do."""
    messages: Sequence[MessageFilter] = ()
    """Which messages somebody looks at."""


_LOOK: Final = (
    "SELECT 'desired', broker, consumer, paused, capacity, {now} FROM gomq_desired "
    "WHERE paused IS NOT NULL OR capacity IS NOT NULL "
    "UNION ALL SELECT 'watch', '', '', NULL, NULL, {now} "
    "FROM gomq_watch WHERE until > {now} "
    "UNION ALL SELECT 'now', '', '', NULL, NULL, {now}"
)
_LOOK_FOR_MESSAGES: Final = (
    " UNION ALL SELECT 'messages', event, consumer, payload, NULL, {now} "
    "FROM gomq_message_watch WHERE until > {now}"
)


class ProcessTables:
    """The tables, as one process uses them, by a connection of its own.

    For one thread. Every method blocks, and raises what the database raises.
    """

    def __init__(self, alias: str, owner: str, role: str) -> None:
        """``owner`` is this start of the process: no other has the same."""
        self._connection = OwnConnection(alias, ANSWER_SECONDS)
        self._owner, self._role = owner, role
        self._slot: int | None = None
        self._ticks = self._samples = 0
        self._has_messages = False

    @property
    def writes_cheaply(self) -> bool:
        """Whether others can write meanwhile."""
        return self._connection.dialect.lock != ""

    def are_there(self) -> bool:
        """Whether the migrations were applied; those of messages may come later."""

        def look(cursor: CursorWrapper) -> list[str]:
            names: list[str] = cursor.db.introspection.table_names(cursor)
            return names

        found = self._connection.run(look)
        self._has_messages = MESSAGE_TABLES.issubset(found)
        return TABLES.issubset(found)

    def look(self) -> Look:
        """Return what operators want, and who looks."""
        desired: dict[Key, ConsumerState] = {}
        messages: set[MessageFilter] = set()
        is_watched, now = False, 0.0
        statement = _LOOK + (_LOOK_FOR_MESSAGES if self._has_messages else "")
        statement = statement.format(now=self._connection.dialect.now)
        for kind, first, second, flag, number, moment in self._connection.read(
            statement
        ):
            now = float(moment)
            if kind == "desired":
                paused = None if flag is None else bool(flag)
                desired[first, second] = ConsumerState(paused, number)
            elif kind == "watch":
                is_watched = True
            elif kind == "messages":
                messages.add(MessageFilter(first, second, bool(flag)))
        return Look(
            now=now,
            desired=desired,
            is_watched=is_watched,
            messages=tuple(sorted(messages)[: 2 * MAX_FILTERS]),
        )

    def tell(self, holds: Holds, ticks: Sequence[Tick]) -> None:
        """Write what this process holds now, and what it has counted."""
        self._connection.run(partial(self._tell, holds=holds, ticks=ticks))
        self._ticks += len(ticks)

    def _tell(self, cursor: CursorWrapper, holds: Holds, ticks: Sequence[Tick]) -> None:
        now = self._connection.dialect.now
        slot = self._enter(cursor, msgspec.json.encode(holds).decode())
        for number, tick in enumerate(ticks, self._ticks):
            counted = msgspec.json.encode(tick.counted).decode()
            values = (tick.ended, tick.seconds, counted, slot, number % PLACES)
            # The place may be free; nobody else writes there.
            cursor.execute(
                "UPDATE gomq_tick SET ended = %s, seconds = %s, counted = %s, "
                f"written = {now} WHERE slot = %s AND place = %s",
                values,
            )
            if not cursor.rowcount:
                cursor.execute(
                    "INSERT INTO gomq_tick "
                    "(ended, seconds, counted, slot, place, written) "
                    f"VALUES (%s, %s, %s, %s, %s, {now})",
                    values,
                )

    def _enter(self, cursor: CursorWrapper, holds: str) -> int:
        """Beat, and write what is held; return the slot, a new one where it must be."""
        now = self._connection.dialect.now
        if self._slot is not None:
            cursor.execute(
                f"UPDATE gomq_site_process SET heartbeat = {now}, holds = %s "
                "WHERE id = %s AND owner = %s",
                (holds, self._slot, self._owner),
            )
            if cursor.rowcount:
                return self._slot
        cursor.execute(
            f"SELECT id FROM gomq_site_process WHERE heartbeat < {now} - %s "
            f"ORDER BY id LIMIT 1 {self._connection.dialect.lock}",
            (FREE_SECONDS,),
        )
        free = cursor.fetchone()
        row: dict[str, Any] = {
            "owner": self._owner,
            "host": socket.gethostname()[:255],
            "pid": os.getpid(),
            "role": self._role[:100],
            "holds": holds,
            "ended": None,
        }
        if free is None:
            names = ", ".join(row)
            marks = ", ".join(["%s"] * len(row))
            cursor.execute(
                f"INSERT INTO gomq_site_process ({names}, started, heartbeat) "
                f"VALUES ({marks}, {now}, {now})",
                tuple(row.values()),
            )
            cursor.execute(
                "SELECT max(id) FROM gomq_site_process WHERE owner = %s",
                (self._owner,),
            )
            free = cursor.fetchone()
        else:
            changes = ", ".join(f"{name} = %s" for name in row)
            cursor.execute(
                f"UPDATE gomq_site_process SET {changes}, started = {now}, "
                f"heartbeat = {now} WHERE id = %s",
                (*row.values(), *free),
            )
        (self._slot,) = free
        return int(free[0])

    def tell_messages(self, told: Sequence[tuple[Sample, str | None]]) -> None:
        """Write sampled messages in the place of older ones, with data or without.

        Nothing is written before this process has told what it does.
        """
        if told and self._slot is not None:
            self._connection.run(partial(self._tell_messages, told=told))
            self._samples += len(told)

    def _tell_messages(
        self, cursor: CursorWrapper, told: Sequence[tuple[Sample, str | None]]
    ) -> None:
        now = self._connection.dialect.now
        for number, (sample, payload) in enumerate(told, self._samples):
            # In ASCII, as there are databases that cannot keep every character.
            text = json.dumps(msgspec.to_builtins(sample))
            data = "" if payload is None else json.dumps(payload)
            place = self._slot, number % RING
            values = (sample.event, sample.consumer, text, data, *place)
            cursor.execute(
                "UPDATE gomq_message_sample SET event = %s, consumer = %s, "
                f"sample = %s, payload = %s, written = {now} "
                "WHERE slot = %s AND place = %s",
                values,
            )
            if not cursor.rowcount:
                cursor.execute(
                    "INSERT INTO gomq_message_sample "
                    "(event, consumer, sample, payload, slot, place, written) "
                    f"VALUES (%s, %s, %s, %s, %s, %s, {now})",
                    values,
                )

    def forget_messages(self) -> None:
        """Delete the sampled messages of this process."""
        if self._slot is not None:
            self._connection.change(
                "DELETE FROM gomq_message_sample WHERE slot = %s", (self._slot,)
            )

    def leave(self) -> None:
        """Say that this process ends. Its last ticks stay."""
        if self._slot is not None:
            self._connection.change(
                "UPDATE gomq_site_process SET ended = "
                f"{self._connection.dialect.now} WHERE id = %s AND owner = %s",
                (self._slot, self._owner),
            )

    def rest(self) -> None:
        """Close the connection, until it is needed again."""
        self._connection.close()
