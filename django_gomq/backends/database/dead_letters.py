"""The dead letters that the database keeps: listed, replayed, discarded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.message import Message
from django_gomq.bus.wire import decode_structured

from . import inbox
from .connection import Dialect
from .outbox import fields_of, hash_of_id
from .rows import MAX_ENVELOPE_BODY, READY

ID_LENGTH: Final = 200
"""Characters of a column of names: others have longer ids than ours."""


def keep(
    cursor: CursorWrapper,
    dialect: Dialect,
    event: int,
    letter: DeadLetter,
    first_failed: float | None,
) -> None:
    """Keep what a consumer gave up of an event.

    ``first_failed`` is what its delivery tells by the clock of the database. What only
    the process knows of it is told by a clock of another machine: its distance counts.
    """
    cursor.execute(
        "INSERT INTO gomq_dead_letter (event_id, broker, consumer, message_id, "
        "trace_id, attempt, error_type, error, traceback, first_failed, failed, type, "
        "envelope) "
        "SELECT id, %s, %s, %s, %s, %s, %s, %s, %s, "
        f"coalesce(%s, {dialect.now} - %s), {dialect.now}, type, envelope "
        "FROM gomq_event WHERE id = %s",
        (
            letter.broker[:ID_LENGTH],
            letter.consumer,
            letter.message.id[:ID_LENGTH],
            letter.trace_id,
            letter.attempt,
            letter.error_type,
            letter.error,
            letter.traceback,
            first_failed,
            letter.time - letter.first_failed,
            event,
        ),
    )


def is_kept(cursor: CursorWrapper, event: int, letter: DeadLetter) -> bool:
    """Whether the dead letter of that attempt is there."""
    cursor.execute(
        "SELECT 1 FROM gomq_dead_letter "
        "WHERE event_id = %s AND consumer = %s AND attempt = %s",
        (event, letter.consumer, letter.attempt),
    )
    return cursor.fetchone() is not None


def in_ascii(letter: DeadLetter) -> DeadLetter:
    """Return the letter with texts that a database of any character set takes."""
    return msgspec.structs.replace(
        letter,
        error_type=_ascii(letter.error_type)[:ID_LENGTH],
        error=_ascii(letter.error),
        traceback=_ascii(letter.traceback),
    )


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


SELECT: Final = (
    "SELECT id, broker, consumer, attempt, error_type, error, traceback, trace_id, "
    "first_failed, failed, type, envelope FROM gomq_dead_letter "
)
# Others are of brokers that have no tables.
LIST: Final = f"{SELECT} WHERE id > %s AND event_id IS NOT NULL ORDER BY id LIMIT %s"


def read(row: Sequence[Any]) -> DeadLetter:
    """Return the dead letter in a row of ``SELECT``."""
    *told, event_type, envelope = row
    number, broker, consumer, attempt, error_type, error, traceback, *times = told
    trace_id, first_failed, failed = times
    return DeadLetter(
        id=_id_of(number),
        message=message_of(event_type, bytes(envelope)),
        broker=broker,
        consumer=consumer,
        attempt=attempt,
        error_type=error_type,
        error=error,
        traceback=traceback,
        trace_id=trace_id,
        first_failed=first_failed,
        time=failed,
    )


def message_of(event_type: str, envelope: bytes) -> Message[Any]:
    """Return the message of a dead letter; its body is the envelope if that is none."""
    try:
        return decode_structured(envelope, max_body_bytes=MAX_ENVELOPE_BODY).message
    except DecodeError:  # that is why it is a dead letter
        return Message(event_type, envelope)


def _id_of(number: int) -> str:
    """Return the id of a dead letter; as texts they sort as the numbers do."""
    return f"{number:019d}"


def numbers_of(ids: Sequence[str]) -> list[int]:
    """Return the numbers of those ids that are some."""
    return [int(name) for name in ids if name.isascii() and name.isdigit()]


def discard(cursor: CursorWrapper, numbers: Iterable[int]) -> list[int]:
    """Delete dead letters; return those that were there."""
    return [number for number in numbers if _delete(cursor, number)]


def _delete(cursor: CursorWrapper, number: int) -> bool:
    cursor.execute("DELETE FROM gomq_dead_letter WHERE id = %s", (number,))
    return bool(cursor.rowcount)


def replay(
    cursor: CursorWrapper, dialect: Dialect, numbers: Iterable[int]
) -> list[int]:
    """Hand dead letters to their consumers again; return those that were.

    One whose consumer is not recorded any more stays where it is.
    """
    return [number for number in numbers if _replay_one(cursor, dialect, number)]


def _replay_one(cursor: CursorWrapper, dialect: Dialect, number: int) -> bool:
    # A write first: on SQLite a transaction that begins with a look may not write where
    # somebody else has written since.
    cursor.execute(
        "UPDATE gomq_dead_letter SET attempt = attempt WHERE id = %s", (number,)
    )
    cursor.execute(
        "SELECT letter.event_id, consumer.id, consumer.ordered, letter.type, "
        "letter.envelope "
        "FROM gomq_dead_letter letter "
        "JOIN gomq_consumer consumer ON consumer.name = letter.consumer "
        "WHERE letter.id = %s AND letter.event_id IS NOT NULL",
        (number,),
    )
    found = cursor.fetchone()
    if found is None or not _delete(cursor, number):
        return False
    event, consumer, is_ordered, event_type, envelope = found
    fields = fields_of(bytes(envelope), is_ordered=bool(is_ordered))
    # A write: a look would not keep what prunes at this moment from deleting it.
    cursor.execute("UPDATE gomq_event SET made = made WHERE id = %s", (event,))
    if not cursor.rowcount:  # its history is pruned
        hashes = hash_of_id(fields.message_id), hash_of_id(fields.causation_id)
        cursor.execute(
            "INSERT INTO gomq_event (id, type, made, envelope, message_hash, "
            f"causation_hash) VALUES (%s, %s, {dialect.now}, %s, %s, %s)",
            (event, event_type, envelope, *hashes),
        )
    cursor.execute(
        "SELECT 1 FROM gomq_delivery WHERE event_id = %s AND consumer_id = %s",
        (event, consumer),
    )
    if cursor.fetchone():  # it is to be handled again already
        return True
    inbox.forget(cursor, consumer, [fields.message_id])
    cursor.execute(
        "INSERT INTO gomq_delivery (event_id, consumer_id, precedence, key_hash, "
        f"state, due, attempt, deaths) VALUES (%s, %s, %s, %s, {READY}, "
        f"{dialect.now}, 1, 0)",
        (event, consumer, fields.precedence, fields.key_hash),
    )
    return True
