"""The tables, and what a row of gomq_delivery is: states, lease, and how it opens."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import REPLAYED, Inbox
from django_gomq.bus.consumer import Consumer, seconds_to_wait
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.message import Message
from django_gomq.bus.wire import WireMessage, decode_structured

TABLES: Final = frozenset(
    {
        "gomq_consumer",
        "gomq_dead_letter",
        "gomq_delivery",
        "gomq_ended_delivery",
        "gomq_event",
        "gomq_inbox",
        "gomq_outbox",
        "gomq_process",
    }
)
"""All that a migration makes."""
_ADDED: Final = frozenset({"causation_hash", "message_hash"})
"""Columns of events that a later migration adds, which nothing works without."""


def absent_columns(cursor: CursorWrapper) -> frozenset[str]:
    """Return the columns, with their tables, that are still to be added. Blocks."""
    describe = cursor.db.introspection.get_table_description
    return frozenset(
        f"{table}.{column}"
        for table in ("gomq_event", "gomq_outbox")
        for column in _ADDED.difference(
            column.name for column in describe(cursor, table)
        )
    )


READY: Final = 0
"""Whoever has room may claim it."""
RUNNING: Final = 1
"""The process of its lease has it."""
SCHEDULED: Final = 2
"""It is delayed, or waits for its next attempt, until it is due."""
SUSPECT: Final = 3
"""It was with a process that died: it may be what killed it, so it is claimed alone."""


MAX_STEP: Final = 1000
"""Rows that one transaction of upkeep changes: short, so that nobody waits for it."""

MAX_PARTS: Final = 100
"""Of one UNION: SQLite takes 500."""

MAX_ENVELOPE_BODY: Final = 2**30
"""What is in the tables was checked when it was emitted."""

_CLAIM_BITS: Final = 24


class Row(msgspec.Struct, frozen=True):
    """A delivery that this process has claimed, with its event."""

    event: int
    consumer: int
    lease: int
    envelope: bytes
    age: float
    """Seconds since it could have been handled first."""
    attempt: int = 1
    deaths: int = 0
    replayed: bool = False
    """Whether somebody had it handed out once more."""

    @property
    def token(self) -> Token:
        """What it is settled by."""
        return Token(self.event, self.consumer, self.lease)


class Token(msgspec.Struct, frozen=True):
    """Names a row, and the claim that it is held by."""

    event: int
    consumer: int
    lease: int


def token_of(delivery: Delivery) -> Token:
    """Return what a delivery is settled by."""
    token = delivery.token
    assert isinstance(token, Token)  # noqa: S101 - it is what we gave out
    return token


def first_lease(process: int) -> int:
    """Return the lowest lease of a process: a lease names its owner."""
    return process << _CLAIM_BITS


def lease_of(process: int, claim: int) -> int:
    """Return the lease of a claim, by its number in that process.

    After 16.7 million claims leases come again: what had the first is long settled, and
    a settlement names its event as well.
    """
    return first_lease(process) + claim % (1 << _CLAIM_BITS)


def leases_of(process: int) -> tuple[int, int]:
    """Return the lowest lease of a process, and the one above its highest."""
    return first_lease(process), first_lease(process + 1)


def events_by_consumer(rows: Iterable[Sequence[int]]) -> Mapping[int, list[int]]:
    """Return the events of these rows, (event, consumer), of each consumer."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for event, consumer in rows:
        found[consumer].append(event)
    return found


def listed(numbers: Iterable[int]) -> str:
    """Return numbers of our own as what follows IN.

    One statement for many rows costs a server a fifth of one for each, and numbers
    that stand in it a fifth of values that are passed beside it.
    """
    return f"({', '.join(map(str, numbers))})"


def among(numbers: Sequence[int]) -> str:
    """Return the condition on a column to be one of these, none of them twice.

    Those of a batch mostly follow one another: a range takes half the time of a list.
    """
    first, last = min(numbers), max(numbers)
    if last - first + 1 == len(numbers):
        return f"BETWEEN {first} AND {last}"
    return f"IN {listed(numbers)}"


class Opened(msgspec.Struct, frozen=True):
    """What became of the rows that were claimed for one consumer."""

    deliveries: Sequence[Delivery]
    set_aside: Sequence[tuple[Token, float]]
    """What is to be claimed again, and in how many seconds."""


def open_rows(
    consumer: Consumer,
    rows: Sequence[Row],
    inbox: Inbox,
    read: MutableMapping[int, WireMessage],
) -> Opened:
    """Return what this code can handle, and what waits for another.

    ``read`` has, by event, what was decoded already: consumers share it. What nobody
    can read, or nobody has read in its time, goes to the dead letters of the consumer.
    Does not block.
    """
    deliveries, set_aside, now = [], [], time.monotonic()
    for row in rows:
        message: Message[Any] | None = None
        try:
            found = _read(row, read)
            message = found.message
            pause = seconds_to_wait(consumer, found)
        except DecodeError as error:
            inbox.quarantine(consumer.name, row.envelope, error, row.token, message)
            continue
        if pause is not None:
            set_aside.append((row.token, pause))
            continue
        if row.replayed:
            message.add_headers({REPLAYED: "true"})
        deliveries.append(
            Delivery(message, now - row.age, row.attempt, row.token, row.deaths + 1)
        )
    return Opened(deliveries, set_aside)


def _read(row: Row, read: MutableMapping[int, WireMessage]) -> WireMessage:
    found = None if row.replayed else read.get(row.event)  # that has its own headers
    if found is None:
        found = decode_structured(row.envelope, max_body_bytes=MAX_ENVELOPE_BODY)
        if not row.replayed:
            read[row.event] = found
    return found
