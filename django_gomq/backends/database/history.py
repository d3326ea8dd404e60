"""Kept history: events that were dispatched, handed to a consumer once more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import HistoryFilter

from . import inbox
from .connection import Dialect, OwnConnection
from .outbox import fields_of
from .recording import Recorded
from .rows import MAX_STEP, READY

LONGEST_DISPATCH: Final = 10.0
"""Seconds within which a dispatch under way has ended, one way or another."""


class _Question(msgspec.Struct, frozen=True):
    """Which rows of history are meant: a condition, and its values."""

    condition: str
    values: tuple[Any, ...]


def wait_for_dispatches(connection: OwnConnection) -> None:
    """Return when nothing is dispatched any more by what was recorded before.

    What a worker dispatches at this moment is locked in the outbox. Blocks, up to ten
    seconds.
    """
    visible = "SELECT id FROM gomq_outbox"
    busy = {row[0] for row in connection.read(visible)}
    busy -= connection.run(partial(_lockable, visible, connection.dialect))
    end = time.monotonic() + LONGEST_DISPATCH
    while busy and time.monotonic() < end:
        time.sleep(0.02)
        busy &= {row[0] for row in connection.read(visible)}


def _lockable(statement: str, dialect: Dialect, cursor: CursorWrapper) -> set[int]:
    cursor.execute(f"{statement} {dialect.lock}")
    return {row[0] for row in cursor.fetchall()}


def count(connection: OwnConnection, consumer: Recorded, kept: HistoryFilter) -> int:
    """Return how many events ``hand_out`` would hand out. Blocks."""
    question = _question(connection, consumer, kept)
    if question is None:
        return 0
    statement = f"SELECT count(*) FROM gomq_event event WHERE {question.condition}"
    ((found,),) = connection.read(statement, question.values)
    return int(found)


def hand_out(
    connection: OwnConnection,
    consumer: Recorded,
    kept: HistoryFilter,
    *,
    replayed: bool,
) -> int:
    """Make deliveries of kept events; return how many. Blocks.

    Those that wait for the consumer anyway are left out. A thousand at a time are
    committed, oldest first.
    """
    question = _question(connection, consumer, kept)
    if question is None:
        return 0
    total, last = 0, -1
    while True:
        step = partial(
            _step, connection.dialect, consumer, question, last, replayed=replayed
        )
        events = connection.run(step)
        if not events:
            return total
        total, last = total + len(events), events[-1]


def _question(
    connection: OwnConnection, consumer: Recorded, kept: HistoryFilter
) -> _Question | None:
    """Return what to ask for; None where no kept type is meant."""
    known = [row[0] for row in connection.read("SELECT DISTINCT type FROM gomq_event")]
    types = [
        event_type
        for event_type in known
        if consumer.wants(event_type) and kept.has(event_type)
    ]
    if not types:
        return None
    marks = ", ".join(["%s"] * len(types))
    conditions = [
        f"event.type IN ({marks})",
        (
            "NOT EXISTS (SELECT 1 FROM gomq_delivery delivery "
            "WHERE delivery.event_id = event.id AND delivery.consumer_id = %s)"
        ),
    ]
    values: list[Any] = [*types, consumer.id]
    for bound, sign in ((kept.since, ">="), (kept.until, "<")):
        if bound is not None:
            conditions.append(f"event.made {sign} %s")
            values.append(bound)
    return _Question(" AND ".join(conditions), tuple(values))


def _step(
    dialect: Dialect,
    consumer: Recorded,
    question: _Question,
    last: int,
    cursor: CursorWrapper,
    *,
    replayed: bool,
) -> Sequence[int]:
    cursor.execute(
        "SELECT event.id, event.envelope FROM gomq_event event "
        f"WHERE event.id > %s AND {question.condition} "
        f"ORDER BY event.id LIMIT {MAX_STEP} {dialect.lock}",
        (last, *question.values),
    )
    fields = {
        event: fields_of(bytes(envelope), is_ordered=consumer.is_ordered)
        for event, envelope in cursor.fetchall()
    }
    inbox.forget(cursor, consumer.id, (each.message_id for each in fields.values()))
    cursor.executemany(
        "INSERT INTO gomq_delivery (event_id, consumer_id, precedence, state, due, "
        "attempt, deaths, key_hash, replayed) "
        f"VALUES (%s, %s, %s, {READY}, {dialect.now}, 1, 0, %s, %s)",
        [
            (event, consumer.id, each.precedence, each.key_hash, replayed)
            for event, each in fields.items()
        ],
    )
    return list(fields)
