"""The way of an event from its emit to the consumers that are recorded."""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final, TypeVar

import msgspec
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import Want
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.event import version_of
from django_gomq.bus.message import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    PRIORITIES,
    Message,
)
from django_gomq.bus.wire import decode_structured, encode_structured

from .connection import Dialect, execute_all, rows_of
from .recording import RECORDED, recorded_in
from .rows import MAX_ENVELOPE_BODY, MAX_PARTS, READY, RUNNING, SCHEDULED, Row, among

MAX_BATCH: Final = 500
"""The most events that one transaction dispatches."""
MAX_ROWS: Final = 256
MAX_BYTES: Final = 2**20
"""Of envelopes: the most that one statement writes. SQLite before 3.32 takes 999 values
beside it, and what ``emit_many`` hands over at once needs no BEGIN and COMMIT so."""

Statement = tuple[str, Sequence[Any]]
"""With its values."""
_Row = tuple[str, int, int | None, float, int | None, int | None, bytes]
R = TypeVar("R", bound=tuple[Any, ...])
_INTO: Final = (
    "INSERT INTO gomq_outbox (type, precedence, key_hash, delay, message_hash, "
    "causation_hash, envelope, made)"
)


def hash_of_key(key: str | None) -> int | None:
    """Return what rows of a key have in common; 63 bits, so it fits a bigint.

    Two keys with one hash wait for each other and nothing worse. A text would be
    compared by the collation of the column, which on MySQL takes "a" for "A".
    """
    if key is None:
        return None
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest()) >> 1


def hash_of_id(message_id: str | None) -> int | None:
    """Return what rows of a message id have in common; 63 bits.

    Of a UUIDv7 these are its milliseconds and its last bits: so neighbours in time are
    neighbours in an index, of which events that are dispatched write one page.
    """
    if message_id is None:
        return None
    found = _UUID7.fullmatch(message_id)
    if found is None:
        return hash_of_key(message_id)
    milliseconds = int(found[1] + found[2], 16) & _MILLISECONDS
    return milliseconds << _LAST_BITS | int(found[3], 16) & (1 << _LAST_BITS) - 1


_UUID7: Final = re.compile(
    r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-([0-9a-f]{12})"
)
_LAST_BITS: Final = 21  # two million ids that a process makes within a millisecond
_MILLISECONDS: Final = (1 << 42) - 1  # until 2109


class DeliveryFields(msgspec.Struct, frozen=True):
    """What an envelope says of the delivery that its event is to have."""

    precedence: int = MAX_PRIORITY - DEFAULT_PRIORITY
    key_hash: int | None = None
    """None for a consumer that is not ordered by key."""
    message_id: str | None = None
    """None where nobody can read it."""
    causation_id: str | None = None


def fields_of(envelope: bytes, *, is_ordered: bool) -> DeliveryFields:
    """Return what an envelope says of its delivery to a consumer."""
    try:
        message = decode_structured(envelope, max_body_bytes=MAX_ENVELOPE_BODY).message
    except DecodeError:  # its consumer will say so
        return DeliveryFields()
    key_hash = hash_of_key(message.key) if is_ordered else None
    return DeliveryFields(
        MAX_PRIORITY - message.priority, key_hash, message.id, message.causation_id
    )


def insertions(
    dialect: Dialect, messages: Sequence[Message[Any]], source: str
) -> list[Statement]:
    """Return the statements, with their values, that write events into the outbox.

    One is enough for up to 256 messages, or 1 MiB of envelopes. Raises EncodeError for
    a message that no envelope can carry.
    """
    rows = [
        (
            message.type,
            MAX_PRIORITY - message.priority,
            hash_of_key(message.key),
            message.delay,
            hash_of_id(message.id),
            hash_of_id(message.causation_id),
            encode_structured(message, source=source, version=version_of(message.type)),
        )
        for message in messages
    ]
    if len(rows) > 1 and dialect.has_arrays:
        return [_from_arrays(dialect, batch) for batch in in_statements(rows)]
    return [_from_values(dialect, batch) for batch in in_statements(rows)]


def write(connection: BaseDatabaseWrapper, inserts: Iterable[Statement]) -> None:
    """Execute these in the transaction that is open."""
    with connection.cursor() as cursor:
        for statement, values in inserts:
            cursor.execute(statement, values)


def write_alone(connection: BaseDatabaseWrapper, inserts: Sequence[Statement]) -> None:
    """Execute all of these or none, in a transaction of their own where none is open.

    One statement is a transaction by itself: BEGIN and COMMIT are two trips. The
    connection is open.
    """
    if len(inserts) == 1 and connection.autocommit:
        write(connection, inserts)
        return
    with transaction.atomic(using=connection.alias, savepoint=False):
        write(connection, inserts)


def in_statements(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    """Yield rows, which end with their envelope, in what one statement may write.

    Every server takes that much: MariaDB ends packets of 16 MiB.
    """
    start = size = 0
    for end, row in enumerate(rows):
        size += len(row[-1])
        if end - start == MAX_ROWS or (size > MAX_BYTES and end > start):
            yield rows[start:end]
            start, size = end, len(row[-1])
    if start < len(rows):
        yield rows[start:]


def _from_values(dialect: Dialect, rows: Sequence[_Row]) -> Statement:
    # Numbers stand in it: a driver takes a microsecond for each value beside it.
    values = ", ".join(
        f"(%s, {precedence}, {_null_or(key_hash)}, {delay!r}, {_null_or(own)}, "
        f"{_null_or(cause)}, %s, {dialect.now})"
        for _, precedence, key_hash, delay, own, cause, _ in rows
    )
    beside = [value for row in rows for value in (row[0], row[-1])]
    return f"{_INTO} VALUES {values}", beside


def _from_arrays(dialect: Dialect, rows: Sequence[_Row]) -> Statement:
    """Write arrays as texts: a third of the time of VALUES, and of psycopg's lists."""
    types, precedences, keys, delays, own, causes, envelopes = zip(*rows, strict=True)
    statement = (
        f"{_INTO} SELECT type, precedence, key_hash, delay, own, cause, "
        f"decode(hex, 'hex'), {dialect.now} FROM unnest(%s::text[], %s::smallint[], "
        "%s::bigint[], %s::float8[], %s::bigint[], %s::bigint[], %s::text[]) "
        "AS event(type, precedence, key_hash, delay, own, cause, hex)"
    )
    return statement, [
        _array(f'"{each}"' for each in types),  # a type of its own is null
        _array(map(str, precedences)),
        _array(map(_null_or, keys)),
        _array(map(repr, delays)),
        _array(map(_null_or, own)),
        _array(map(_null_or, causes)),
        _array(each.hex() for each in envelopes),
    ]


def _null_or(number: int | None) -> str:
    return "NULL" if number is None else str(number)


def _array(texts: Iterable[str]) -> str:
    return f"{{{','.join(texts)}}}"


_NEXT = (
    "SELECT precedence, id, type, delay, made, envelope, {now} "
    "FROM gomq_outbox ORDER BY precedence, id LIMIT {limit} {lock}"
)
_NEXT_AFTER = (
    "SELECT event.precedence, id, type, delay, made, envelope, {now} "
    "FROM (VALUES {places}) AS place(precedence, after) CROSS JOIN LATERAL "
    "(SELECT precedence, id, type, delay, made, envelope FROM gomq_outbox "
    "WHERE {after} ORDER BY gomq_outbox.precedence, id LIMIT {limit} {lock}) AS event "
    "LIMIT {limit}"
)
# Of rows, so that no index serves it but that of both.
_AFTER: Final = (
    "(gomq_outbox.precedence, id) > (place.precedence, after) "
    "AND gomq_outbox.precedence <= place.precedence"
)
_ANY: Final = "(SELECT 1 FROM gomq_outbox ORDER BY precedence, id LIMIT 1)"
_ANY_AFTER: Final = (
    "(SELECT 1 FROM (VALUES {places}) AS place(precedence, after) "
    "CROSS JOIN LATERAL (SELECT 1 FROM gomq_outbox WHERE {after} "
    "ORDER BY gomq_outbox.precedence, gomq_outbox.id LIMIT 1) AS event LIMIT 1)"
)
_MARGIN: Final = 500
"""Ids below the last one that are looked at, too: most that commit late are there."""
_PAUSE: Final = 1.0
_REST: Final = 20.0
"""It is looked from the start after a second, or so many times as long as it takes."""
_COPIED = (
    "INSERT INTO gomq_event (id, type, made, envelope, message_hash, causation_hash) "
    "SELECT id, type, made, envelope, message_hash, causation_hash "
    "FROM gomq_outbox WHERE id "
)
_DELIVER = (
    "INSERT INTO gomq_delivery (event_id, consumer_id, precedence, state, due, lease, "
    "attempt, deaths, key_hash) "
)
_NO_NUMBER: Final = "nullif(0, 0)"  # NULL alone is a text to a UNION


class Position:
    """Where a process reads the outbox on, by precedence: past what it has dispatched.

    While any transaction of the database is open, PostgreSQL keeps the rows that were
    deleted since, and who looks from the start goes past all of them. What is below is
    of a transaction that committed late, or of a process that gave up: it is found by a
    look from the start, now and then. For the reader's thread.
    """

    def __init__(self) -> None:
        self._after = dict.fromkeys(PRIORITIES, 0)
        self._last = 0
        self._from_start = True
        self._start_at = 0.0

    @contextmanager
    def looking(self, dialect: Dialect) -> Iterator[str]:
        """Give the question whether there is any event, to be asked meanwhile."""
        began = time.monotonic()
        self._from_start = began >= self._start_at
        yield self._whole_or(_ANY, _ANY_AFTER, dialect)
        if self._from_start:
            now = time.monotonic()
            self._start_at = now + max(_PAUSE, _REST * (now - began))

    def next_statement(self, dialect: Dialect, limit: int) -> str:
        """Return what reads and locks the next events; ``advance`` takes its rows.

        What others have locked is left out.
        """
        return self._whole_or(_NEXT, _NEXT_AFTER, dialect, limit)

    def advance(
        self, found: Iterable[tuple[Any, ...]], limit: int
    ) -> list[tuple[Any, ...]]:
        """Go on behind what that statement has found; return it, without precedence."""
        rows = sorted(found, key=itemgetter(0, 1))
        for precedence, number, *_ in rows:
            if precedence in self._after:  # else somebody else has written it
                self._after[precedence] = max(number, self._after[precedence])
            self._last = max(number, self._last)
        if self._from_start and len(rows) < limit:  # nothing is left below
            self._after = dict.fromkeys(PRIORITIES, self._last)
        self._from_start = False
        return [row[1:] for row in rows]

    def _whole_or(self, whole: str, part: str, dialect: Dialect, limit: int = 1) -> str:
        names = {"now": dialect.now, "lock": dialect.lock, "limit": limit}
        if self._from_start or not dialect.keeps_deleted:
            return whole.format(**names)
        places = ", ".join(
            f"({precedence}, {max(0, number - _MARGIN)}::bigint)"
            for precedence, number in sorted(self._after.items())
        )
        return part.format(places=places, after=_AFTER, **names)


class _Part(msgspec.Struct, frozen=True):
    """Deliveries that differ by nothing but their events."""

    consumer: int
    state: int
    lease: int | None
    keeps_key: bool

    def select(self, events: Sequence[int]) -> str:
        """Return what reads them from the outbox: no row goes to the server again."""
        lease = _NO_NUMBER if self.lease is None else self.lease
        key_hash = "key_hash" if self.keeps_key else _NO_NUMBER
        return (
            f"SELECT id, {self.consumer}, precedence, {self.state}, "
            f"CASE WHEN delay > 0 THEN made + delay END, {lease}, 1, 0, {key_hash} "
            f"FROM gomq_outbox WHERE id {among(events)}"
        )


def dispatch(
    cursor: CursorWrapper,
    dialect: Dialect,
    position: Position,
    wants: Sequence[Want],
    lease: int,
) -> Mapping[str, list[Row]]:
    """Move events on to their consumers; return what this process takes of them.

    Every recorded consumer of an event's type gets a delivery. Those that are wanted
    here, up to their room, are born running with this lease. Of ordered consumers none
    is: what is before them may be with another process.
    """
    limit = min(MAX_BATCH, max(want.room for want in wants))
    # In one trip, and in this order: no consumer is missed that was recorded before.
    found, recorded = rows_of(
        cursor, dialect, [position.next_statement(dialect, limit), RECORDED]
    )
    events = position.advance(found, limit)
    if not events:
        return {}
    rooms = {want.consumer.name: want.room for want in wants}
    taken: dict[str, list[Row]] = {}
    parts: defaultdict[_Part, list[int]] = defaultdict(list)
    consumers = recorded_in(recorded)
    takers = {
        event_type: [consumer for consumer in consumers if consumer.wants(event_type)]
        for event_type in {event[1] for event in events}
    }
    for number, event_type, delay, made, envelope, now in events:
        due = made + delay if delay else made
        is_due = not delay or due <= now
        for consumer in takers[event_type]:
            takes = is_due and not consumer.is_ordered and rooms.get(consumer.name, 0)
            if takes:
                rooms[consumer.name] -= 1
                row = Row(number, consumer.id, lease, bytes(envelope), now - due)
                taken.setdefault(consumer.name, []).append(row)
            state = RUNNING if takes else READY if is_due else SCHEDULED
            held_by = lease if takes else None
            part = _Part(consumer.id, state, held_by, consumer.is_ordered)
            parts[part].append(number)
    _move(cursor, dialect, [event[0] for event in events], parts)
    return taken


def _move(
    cursor: CursorWrapper,
    dialect: Dialect,
    events: Sequence[int],
    parts: Mapping[_Part, Sequence[int]],
) -> None:
    selects = [part.select(numbers) for part, numbers in parts.items()]
    delivered = [
        _DELIVER + " UNION ALL ".join(selects[start : start + MAX_PARTS])
        for start in range(0, len(selects), MAX_PARTS)
    ]
    numbers = among(events)
    emptied = f"DELETE FROM gomq_outbox WHERE id {numbers}"
    execute_all(cursor, dialect, [*delivered, _COPIED + numbers, emptied])
