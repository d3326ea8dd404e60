"""Spilled messages of which it is asked who takes them back: found, handed on, removed.

Who has spilled and takes them back has no need of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.dead_letters import trace_id_of

from .connection import Dialect, OwnConnection
from .dead_letters import ID_LENGTH, message_of
from .rows import MAX_STEP, listed
from .sampling import MAX_COUNT
from .spill import TABLES, hash_of_subscription, missing_tables, remove_dead
from .upkeep import REMOVED

ANSWER_SECONDS: Final = 30.0
_DEAD_LETTER: Final = (
    "INSERT INTO gomq_dead_letter (broker, consumer, message_id, trace_id, attempt, "
    "error_type, error, traceback, first_failed, failed, type, envelope) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, '', coalesce(%s, {now}), {now}, %s, %s)"
)


class SpilledRows(msgspec.Struct, frozen=True):
    """What a table has of one consumer of a memory broker."""

    broker: str
    consumer: str
    count: int
    """How many messages; MAX_COUNT where there are more."""


def find(using: str) -> list[SpilledRows]:
    """Return what is spilled in a database; nothing where it has no such table.

    Blocks; raises what the database raises.
    """
    if TABLES[0] in missing_tables(using):
        return []
    with closing(OwnConnection(using, ANSWER_SECONDS)) as connection:
        return _find(connection)


def _find(connection: OwnConnection) -> list[SpilledRows]:
    """Step from one subscription to the next: no backlog is read for it."""
    found: list[SpilledRows] = []
    after, values = "", list[Any]()
    while rows := connection.read(
        f"SELECT subscription, broker, consumer FROM gomq_spilled {after} "
        "ORDER BY subscription LIMIT 1",
        values,
    ):
        ((subscription, broker, consumer),) = rows
        ((count,),) = connection.read(
            "SELECT count(*) FROM (SELECT 1 AS one FROM gomq_spilled "
            f"WHERE subscription = %s LIMIT {MAX_COUNT}) AS spilled",
            (subscription,),
        )
        found.append(SpilledRows(broker, consumer, count))
        after, values = "WHERE subscription > %s", [subscription]
    return found


def discard(using: str, broker: str, consumer: str) -> int:
    """Delete what no living process has; return how many messages.

    This, and the two below, take a transaction for each thousand. They block, and raise
    what the database raises; called again they go on.
    """
    return _take_away(using, broker, consumer, None)


def bury(using: str, broker: str, consumer: str) -> int:
    """Make dead letters of them, in the same database."""

    def keep(cursor: CursorWrapper, dialect: Dialect, found: Sequence[Any]) -> None:
        cursor.executemany(
            _DEAD_LETTER.format(now=dialect.now),
            [_dead_letter(broker, consumer, *values) for _, *values in found],
        )

    return _take_away(using, broker, consumer, keep)


def _dead_letter(
    broker: str,
    consumer: str,
    event_type: str,
    attempt: int,
    first_failed: float | None,
    envelope: Any,
) -> Sequence[Any]:
    message = message_of(event_type, bytes(envelope))
    return (
        broker,
        consumer,
        message.id[:ID_LENGTH],
        trace_id_of(message),
        attempt,
        REMOVED,
        f"{REMOVED}: it was spilled, and its consumer was removed",
        first_failed,
        event_type,
        envelope,
    )


def hand_on(using: str, broker: str, consumer: str, to: str) -> int:
    """Let another consumer of the same broker have them."""
    values = hash_of_subscription(broker, to), to

    def step(cursor: CursorWrapper, dialect: Dialect, found: Sequence[Any]) -> None:
        cursor.execute(
            "UPDATE gomq_spilled SET subscription = %s, consumer = %s "
            f"WHERE id IN {_ids_in(found)}",
            values,
        )

    return _in_steps(using, broker, consumer, step)


_Step = Callable[[CursorWrapper, Dialect, Sequence[Any]], None]


def _take_away(using: str, broker: str, consumer: str, keep: _Step | None) -> int:
    def step(cursor: CursorWrapper, dialect: Dialect, found: Sequence[Any]) -> None:
        if keep is not None:
            keep(cursor, dialect, found)
        cursor.execute(f"DELETE FROM gomq_spilled WHERE id IN {_ids_in(found)}")

    return _in_steps(using, broker, consumer, step)


def _ids_in(found: Sequence[Any]) -> str:
    return listed(row[0] for row in found)


def _in_steps(using: str, broker: str, consumer: str, step: _Step) -> int:
    """Have a step do with all that no living process has; return how many."""
    subscription = hash_of_subscription(broker, consumer)

    def once(cursor: CursorWrapper) -> int:
        found = _nobodys(cursor, connection.dialect, subscription)
        if found:
            step(cursor, connection.dialect, found)
        return len(found)

    with closing(OwnConnection(using, ANSWER_SECONDS)) as connection:
        remove_dead(connection)
        total = 0
        while count := connection.run(once):
            total += count
    return total


def _nobodys(
    cursor: CursorWrapper, dialect: Dialect, subscription: int
) -> Sequence[Any]:
    """Return the next that no living process has, in their order."""
    cursor.execute(
        "SELECT id, type, attempt, first_failed, envelope FROM gomq_spilled "
        "WHERE subscription = %s AND owner IS NULL ORDER BY precedence, place, id "
        f"LIMIT {MAX_STEP} {dialect.lock}",
        (subscription,),
    )
    return list(cursor.fetchall())
