"""The table of messages that found no room in a process, and who may have them."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from django.db import DatabaseError, connections
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.channels.spilling import Spilled
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import ConfigurationError, EncodeError
from django_gomq.bus.event import version_of
from django_gomq.bus.message import MAX_PRIORITY
from django_gomq.bus.wire import encode_structured

from .connection import OwnConnection
from .dead_letters import message_of
from .outbox import hash_of_key, in_statements
from .rows import MAX_STEP, listed

LEASE: Final = 60.0
"""Seconds without a beat after which others may have what a process has stored."""
ANSWER_SECONDS: Final = 20.0
"""So long a statement is waited for, so that a beat is never late."""
SOURCE: Final = "spilled"
"""Who made these events: an envelope has to say it, and nobody reads it."""
TABLES: Final = ("gomq_spilled", "gomq_spiller")

_COLUMNS: Final = (
    "subscription, broker, consumer, owner, precedence, place, type, attempt, "
    "postponed, first_failed, available, envelope"
)
_NOBODYS: Final = "subscription = %s AND owner IS NULL"


class _Row(msgspec.Struct, frozen=True):
    """A spilled message of ours, as it was read."""

    id: int
    place: int
    type: str
    attempt: int
    postponed: int
    first_failed: float | None
    age: float
    """Seconds since it could have been handled first; below 0: until then."""
    envelope: bytes

    @property
    def delivery(self) -> Delivery:
        return Delivery(
            message_of(self.type, bytes(self.envelope)),
            time.monotonic() - self.age,
            self.attempt,
            token=self.place,
            postponed=self.postponed,
            first_failed=self.first_failed,
        )


class DatabaseSpillStore:
    """Keeps the spilled messages of one broker in a database, for one process.

    A row belongs to the process that wrote it, by its row in gomq_spiller, or to nobody
    after an orderly end. Who has not beaten for a lease is removed from there, and what
    it had is nobody's.

    For one thread. Every method but the constructor blocks, and raises what the
    database raises; each step is a transaction, and can be asked for again.
    """

    def __init__(self, broker: str, *, using: str) -> None:
        self._broker = broker
        self._using = using
        self._connection = OwnConnection(using, ANSWER_SECONDS)
        self._name = f"{socket.gethostname()[:60]}-{os.getpid()}-{os.urandom(6).hex()}"
        self._owner: int | None = None
        self._may_be_written = False
        """Whether the last write was not answered."""
        self._read: dict[str, Sequence[_Row]] = {}
        """What was read, by consumer, and perhaps deleted: that was not answered."""

    def check(self) -> None:
        """Raise ConfigurationError if the tables are missing.

        A database that is away may have them.
        """
        try:
            missing = missing_tables(self._using)
        except DatabaseError:
            return
        if missing:
            raise ConfigurationError(
                f"Broker {self._broker!r} has consumers with overflow='spill', and "
                f"database {self._using!r} has no table {missing[0]}: run manage.py "
                f"migrate --database {self._using}.",
                broker=self._broker,
            )

    # ------------------------------------------------------------ ours

    def write(self, consumer: str, spilled: Sequence[Spilled]) -> Sequence[Spilled]:
        """Keep these; return those whose body no envelope can carry."""
        rows, refused = [], []
        for each in spilled:
            try:
                rows.append(self._values_of(consumer, each))
            except EncodeError:
                refused.append(each)
        places = [each.place for each in spilled]
        was_in_doubt, self._may_be_written = self._may_be_written, True
        self._connection.run(
            partial(self._insert, consumer, rows, places if was_in_doubt else ())
        )
        self._may_be_written = False
        return refused

    def _values_of(self, consumer: str, spilled: Spilled) -> tuple[Any, ...]:
        delivery = spilled.delivery
        message = delivery.message
        envelope = encode_structured(
            message, source=SOURCE, version=version_of(message.type)
        )
        return (
            MAX_PRIORITY - message.priority,
            spilled.place,
            message.type,
            delivery.attempt,
            delivery.postponed,
            delivery.first_failed,
            time.monotonic() - delivery.available,
            envelope,
        )

    def _insert(
        self,
        consumer: str,
        rows: Sequence[tuple[Any, ...]],
        in_doubt: Sequence[int],
        cursor: CursorWrapper,
    ) -> None:
        owner, subscription = self._enter(cursor), self._hash_of(consumer)
        if in_doubt:
            cursor.execute(
                "DELETE FROM gomq_spilled WHERE subscription = %s AND owner = %s "
                f"AND place IN {listed(in_doubt)}",
                (subscription, owner),
            )
        now = self._connection.dialect.now
        marks = f"(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, {now} - %s, %s)"
        whose = subscription, self._broker, consumer, owner
        for part in in_statements(rows):
            cursor.execute(
                f"INSERT INTO gomq_spilled ({_COLUMNS}) "
                f"VALUES {', '.join([marks] * len(part))}",
                [value for row in part for value in (*whose, *row)],
            )

    def take(self, consumer: str, most: int) -> Sequence[Delivery]:
        """Delete and return up to so many of ours, by priority and place."""
        rows = self._read.get(consumer)
        if rows is None:
            rows = self._read[consumer] = self._next(consumer, most)
        taken, later = rows[:most], rows[most:]
        is_ours = not taken or self._connection.run(partial(self._delete, taken))
        if later and is_ours:
            self._read[consumer] = later
        else:
            del self._read[consumer]
        return [row.delivery for row in taken] if is_ours else ()

    def _next(self, consumer: str, most: int) -> Sequence[_Row]:
        now = self._connection.dialect.now
        found = self._connection.read(
            "SELECT id, place, type, attempt, postponed, first_failed, "
            f"{now} - available, envelope FROM gomq_spilled "
            "WHERE subscription = %s AND owner = %s "
            "ORDER BY precedence, place, id LIMIT %s",
            (self._hash_of(consumer), self._owner or 0, most),
        )
        return [_Row(*row) for row in found]

    def _delete(self, rows: Sequence[_Row], cursor: CursorWrapper) -> bool:
        """Delete what was read; return whether it was still ours."""
        if not self._is_known(cursor):
            return False
        # Nobody else deletes rows of a process that is known: what is gone, is by us.
        cursor.execute(
            f"DELETE FROM gomq_spilled WHERE id IN {listed(row.id for row in rows)} "
            "AND owner = %s",
            (self._owner,),
        )
        return True

    # ------------------------------------------------------------ nobody's

    def adopt(self, consumer: str, most: int | None) -> Mapping[str, int]:
        """Take over what nobody has; return it by event type."""
        remove_dead(self._connection)
        if not self._connection.read(
            f"SELECT 1 FROM gomq_spilled WHERE {_NOBODYS} LIMIT 1",
            (self._hash_of(consumer),),
        ):
            return {}
        return self._connection.run(partial(self._adopt, consumer, most))

    def _adopt(
        self, consumer: str, most: int | None, cursor: CursorWrapper
    ) -> Mapping[str, int]:
        owner, lock = self._enter(cursor), self._connection.dialect.lock
        statement = (
            f"SELECT id, type FROM gomq_spilled WHERE {_NOBODYS} "
            "ORDER BY precedence, place, id"
        )
        if most is None:  # who wants all of them waits for who is about to have them
            cursor.execute(
                f"{statement} {lock.removesuffix(' SKIP LOCKED')}",
                (self._hash_of(consumer),),
            )
        else:
            cursor.execute(
                f"{statement} LIMIT %s {lock}", (self._hash_of(consumer), most)
            )
        rows = cursor.fetchall()
        for start in range(0, len(rows), MAX_STEP):
            ids = listed(number for number, _ in rows[start : start + MAX_STEP])
            cursor.execute(
                f"UPDATE gomq_spilled SET owner = %s WHERE id IN {ids}", (owner,)
            )
        return Counter(event_type for _, event_type in rows)

    # ------------------------------------------------------------ who has them

    def _enter(self, cursor: CursorWrapper) -> int:
        """Beat, entered anew if others have removed us; return our number."""
        if self._owner is None or not self._is_known(cursor):
            now = self._connection.dialect.now
            cursor.execute(
                f"INSERT INTO gomq_spiller (name, heartbeat) VALUES (%s, {now})",
                (self._name,),
            )
            cursor.execute(
                "SELECT max(id) FROM gomq_spiller WHERE name = %s", (self._name,)
            )
            (self._owner,) = cursor.fetchone()
        return self._owner or 0

    def _is_known(self, cursor: CursorWrapper) -> bool:
        """Beat; return whether others knew us.

        Until the commit nobody removes us.
        """
        cursor.execute(
            f"UPDATE gomq_spiller SET heartbeat = {self._connection.dialect.now} "
            "WHERE id = %s",
            (self._owner or 0,),
        )
        return bool(cursor.rowcount)

    def beat(self) -> None:
        """Say that this process lives."""
        if self._owner is not None:
            self._connection.run(self._is_known)

    def leave(self) -> None:
        """Let others have what is ours, and close the connection."""
        if self._owner is not None:
            self._connection.run(partial(self._leave, self._owner))
            self._owner = None
        self._connection.close()

    def _leave(self, number: int, cursor: CursorWrapper) -> None:
        cursor.execute("DELETE FROM gomq_spiller WHERE id = %s", (number,))
        cursor.execute(
            "UPDATE gomq_spilled SET owner = NULL WHERE owner = %s", (number,)
        )

    def _hash_of(self, consumer: str) -> int:
        """Return what its rows go by: a name would be compared by a collation."""
        return hash_of_subscription(self._broker, consumer)


def hash_of_subscription(broker: str, consumer: str) -> int:
    """Return what the rows of a consumer go by."""
    return hash_of_key(f"{broker} {consumer}") or 0


def remove_dead(connection: OwnConnection) -> None:
    """Let others have what processes have spilled that do not live any more. Blocks."""
    now = connection.dialect.now
    dead = connection.read(
        f"SELECT id FROM gomq_spiller WHERE heartbeat < {now} - %s", (LEASE,)
    )
    for (number,) in dead:
        connection.run(partial(_remove, number, now))


def _remove(number: int, now: str, cursor: CursorWrapper) -> None:
    cursor.execute(
        f"DELETE FROM gomq_spiller WHERE id = %s AND heartbeat < {now} - %s",
        (number, LEASE),
    )
    if cursor.rowcount:
        cursor.execute(
            "UPDATE gomq_spilled SET owner = NULL WHERE owner = %s", (number,)
        )


def missing_tables(using: str) -> list[str]:
    """Return which of the tables a database does not have.

    Blocks; raises what the database raises.
    """
    connection = connections.create_connection(using)
    try:
        known = connection.introspection.table_names()
    finally:
        connection.close()
    return sorted(set(TABLES) - set(known))
