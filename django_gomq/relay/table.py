"""The outbox of brokers that have a server: what waits in a database to be forwarded.

Rows go by a number that is made of their broker's alias: a text would be compared by
the collation of its column. Every function but ``insertions`` blocks, and raises what
the database raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import msgspec
from django.db import IntegrityError, connections
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database.connection import Dialect, OwnConnection
from django_gomq.backends.database.dead_letters import ID_LENGTH, message_of
from django_gomq.backends.database.outbox import (
    Statement,
    hash_of_key,
    in_statements,
)
from django_gomq.backends.database.rows import listed
from django_gomq.bus.dead_letters import trace_id_of
from django_gomq.bus.errors import GoMQError, class_name, describe_error
from django_gomq.bus.event import version_of
from django_gomq.bus.message import Message
from django_gomq.bus.wire import encode_structured

TABLES: Final = frozenset({"gomq_dead_letter", "gomq_relay", "gomq_relay_event"})
RELAY: Final = "gomq.relay"
"""Stands for the consumer in the dead letters of what a server refused."""
MAX_COUNT: Final = 100_000
"""Rows that are counted: so many wait, or more."""
MAX_REFUSED: Final = 10_000
"""Of one broker are kept, as of the dead letters of other brokers without tables."""

ASKED_SECONDS: Final = 10.0
"""How long who only asks waits for an answer."""

_COLUMNS: Final = "relay_id, broker, type, key_hash, delay, made, envelope"


class Waiting(msgspec.Struct, frozen=True):
    """An event that is to be forwarded."""

    id: int
    key_hash: int | None
    """What all of one key have in common."""
    delay: float
    age: float
    """Seconds since it was emitted, by the clock of the database."""
    envelope: bytes

    @property
    def delay_left(self) -> float:
        """Seconds until it is due."""
        return max(0.0, self.delay - max(0.0, self.age)) if self.delay else 0.0


class Refusal(msgspec.Struct, frozen=True):
    """An event that the server will never take."""

    event: Waiting
    error: GoMQError


class Share(msgspec.Struct, frozen=True):
    """What waits of one event type, and is due, or is not."""

    type: str
    is_due: bool
    count: int
    due_age: float
    """For how long the oldest has been due, in seconds."""
    age: float
    """Seconds since the oldest was emitted."""


class Sample(msgspec.Struct, frozen=True):
    """What the outbox of one broker was found to hold."""

    waiting: Sequence[Share]
    refused: int
    """Dead letters of what the server refused."""
    is_relayed: bool
    """Whether a process forwards it."""

    @property
    def depth(self) -> int:
        """How many events wait."""
        return sum(share.count for share in self.waiting)

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest was emitted; 0 without one."""
        return max((share.age for share in self.waiting), default=0.0)


def id_of(broker: str) -> int:
    """Return what the rows of a broker go by."""
    return hash_of_key(broker) or 0


def insertions(
    dialect: Dialect, broker: str, messages: Sequence[Message[Any]], source: str
) -> list[Statement]:
    """Return the statements, with their values, that write events into the outbox.

    Raises EncodeError for a message that no envelope can carry.
    """
    relay = id_of(broker)
    rows = [
        (
            relay,
            broker,
            message.type,
            hash_of_key(message.key),
            message.delay,
            encode_structured(message, source=source, version=version_of(message.type)),
        )
        for message in messages
    ]
    return [_insertion(dialect, batch) for batch in in_statements(rows)]


def _insertion(dialect: Dialect, rows: Sequence[tuple[Any, ...]]) -> Statement:
    marks = f"(%s, %s, %s, %s, %s, {dialect.now}, %s)"
    statement = (
        f"INSERT INTO gomq_relay_event ({_COLUMNS}) "
        f"VALUES {', '.join([marks] * len(rows))}"
    )
    return statement, [value for row in rows for value in row]


def missing_tables(using: str) -> list[str]:
    """Return which of the tables a database does not have."""
    return sorted(TABLES.difference(connections[using].introspection.table_names()))


# ---------------------------------------------------------------- who forwards


def claim(connection: OwnConnection, broker: str, owner: str, seconds: float) -> bool:
    """Have this process forward for so many seconds from now; return whether it may.

    It may where it does already, and where nobody else does.
    """
    now, relay = connection.dialect.now, id_of(broker)
    if connection.change(
        f"UPDATE gomq_relay SET owner = %s, held_until = {now} + %s "
        f"WHERE id = %s AND (owner = %s OR held_until < {now})",
        (owner, seconds, relay, owner),
    ):
        return True
    if connection.read("SELECT 1 FROM gomq_relay WHERE id = %s", (relay,)):
        return False
    try:
        connection.change(
            "INSERT INTO gomq_relay (id, broker, owner, held_until) "
            f"VALUES (%s, %s, %s, {now} + %s)",
            (relay, broker, owner, seconds),
        )
    except IntegrityError:
        return False  # somebody was faster
    return True


def leave(connection: OwnConnection, broker: str, owner: str) -> None:
    """Let another process forward."""
    connection.change(
        "UPDATE gomq_relay SET held_until = 0 WHERE id = %s AND owner = %s",
        (id_of(broker), owner),
    )


# ---------------------------------------------------------------- what waits


def next_events(connection: OwnConnection, broker: str, most: int) -> list[Waiting]:
    """Return the oldest events of a broker, in the order in which they were emitted."""
    rows = connection.read(
        f"SELECT id, key_hash, delay, {connection.dialect.now} - made, envelope "
        "FROM gomq_relay_event WHERE relay_id = %s ORDER BY id LIMIT %s",
        (id_of(broker), most),
    )
    return [
        Waiting(number, key_hash, delay, age, bytes(envelope))
        for number, key_hash, delay, age, envelope in rows
    ]


def delete(connection: OwnConnection, numbers: Sequence[int]) -> None:
    """Forget what the server has."""
    connection.change(f"DELETE FROM gomq_relay_event WHERE id IN {listed(numbers)}")


def refuse(
    cursor: CursorWrapper, dialect: Dialect, refusals: Sequence[Refusal]
) -> None:
    """Make dead letters of what the server refuses for good."""
    for refusal in refusals:
        number, error = refusal.event.id, refusal.error
        message = message_of(RELAY, refusal.event.envelope)
        cursor.execute(
            "INSERT INTO gomq_dead_letter (broker, consumer, message_id, trace_id, "
            "attempt, error_type, error, traceback, first_failed, failed, type, "
            "envelope) "
            f"SELECT broker, %s, %s, %s, 1, %s, %s, '', {dialect.now}, {dialect.now}, "
            "type, envelope FROM gomq_relay_event WHERE id = %s",
            (
                RELAY,
                message.id[:ID_LENGTH],
                trace_id_of(message),
                class_name(error),
                describe_error(error),
                number,
            ),
        )
    numbers = listed(refusal.event.id for refusal in refusals)
    cursor.execute(f"DELETE FROM gomq_relay_event WHERE id IN {numbers}")


_REFUSED: Final = "broker = %s AND event_id IS NULL AND consumer = %s"


def forget_oldest(cursor: CursorWrapper, broker: str, most: int = MAX_REFUSED) -> int:
    """Bound the dead letters of what was refused; return how many were deleted."""
    cursor.execute(
        f"SELECT id FROM gomq_dead_letter WHERE {_REFUSED} "
        "ORDER BY id DESC LIMIT 1 OFFSET %s",
        (broker, RELAY, most),
    )
    newest = cursor.fetchone()
    if newest is None:
        return 0
    cursor.execute(
        f"DELETE FROM gomq_dead_letter WHERE {_REFUSED} AND id <= %s",
        (broker, RELAY, *newest),
    )
    return int(cursor.rowcount)


def replay(
    cursor: CursorWrapper, dialect: Dialect, numbers: Sequence[int]
) -> list[int]:
    """Put dead letters of a relay into the outbox again; return which these were."""
    if not numbers:
        return []
    cursor.execute(
        "SELECT id, broker, type, envelope FROM gomq_dead_letter WHERE consumer = %s "
        f"AND event_id IS NULL AND id IN {listed(numbers)} ORDER BY id {dialect.lock}",
        (RELAY,),
    )
    rows = cursor.fetchall()
    for _, broker, event_type, envelope in rows:
        key = hash_of_key(message_of(event_type, bytes(envelope)).key)
        given = (id_of(broker), broker, event_type, key, 0.0, bytes(envelope))
        cursor.execute(*_insertion(dialect, [given]))
    replayed = [row[0] for row in rows]
    if replayed:
        cursor.execute(f"DELETE FROM gomq_dead_letter WHERE id IN {listed(replayed)}")
    return replayed


def sample(connection: OwnConnection, broker: str) -> Sample:
    """Count what waits for a broker, and what its server refused, up to a bound."""
    now, relay = connection.dialect.now, id_of(broker)
    rows = connection.read(
        "SELECT type, CASE WHEN due <= now THEN 1 ELSE 0 END AS is_due, count(*), "
        "max(now - due), max(now - made) FROM ("
        f"SELECT type, made, made + delay AS due, {now} AS now FROM gomq_relay_event "
        f"WHERE relay_id = %s ORDER BY id LIMIT {MAX_COUNT}) AS waiting "
        "GROUP BY type, is_due",
        (relay,),
    )
    waiting = [
        Share(event, bool(is_due), count, max(0.0, float(due)), max(0.0, float(made)))
        for event, is_due, count, due, made in rows
    ]
    ((refused,),) = connection.read(
        "SELECT count(*) FROM (SELECT 1 AS one FROM gomq_dead_letter "
        f"WHERE {_REFUSED} LIMIT {MAX_COUNT}) AS letters",
        (broker, RELAY),
    )
    held = connection.read(
        f"SELECT 1 FROM gomq_relay WHERE id = %s AND held_until >= {now}", (relay,)
    )
    return Sample(waiting, refused, bool(held))


def unrelayed(using: str, broker: str) -> int:
    """Return how many events of a broker wait that no process forwards.

    0 where there are no tables yet.
    """
    if missing_tables(using):
        return 0
    with closing(OwnConnection(using, ASKED_SECONDS)) as connection:
        found = sample(connection, broker)
    return 0 if found.is_relayed else found.depth
