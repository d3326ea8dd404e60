"""The inbox: what idempotent consumers have handled, noted with what they did."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from django.db import Error, IntegrityError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.delivery import Delivery, RetryLater
from django_gomq.bus.errors import ConfigurationError

from .connection import Dialect, execute_all
from .rows import listed, token_of

MAX_ROWS: Final = 500
"""Of one statement."""
PAUSE: Final = 1.0
"""Seconds until a message comes again that another process is at."""
_TAKEN: Final = frozenset({1205, 1213, "55P03", "40P01"})
"""MariaDB's and PostgreSQL's: it was locked for too long, or two waited in a circle."""


def key_of(message_id: str) -> str:
    """Return what an id has in the table: 32 digits, as of a UUID, which most are."""
    try:
        return UUID(message_id).hex
    except ValueError:
        text = message_id.encode(errors="surrogatepass")
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def note(
    connection: BaseDatabaseWrapper,
    dialect: Dialect,
    deliveries: Sequence[Delivery],
    broker: str,
) -> list[bool]:
    """Note what one consumer handles; return for each whether it is the first time.

    In the transaction that is open. Raises ConfigurationError where none is, and
    RetryLater where another one has noted one of them and not ended: after some
    seconds, or once it has.
    """
    if not connection.in_atomic_block:
        raise ConfigurationError(
            "idempotent needs the handlers of Django's environment, which has "
            f"transactions: none of database {connection.alias!r} is open here.",
            broker=broker,
        )
    with connection.cursor() as cursor:
        return _note(cursor, dialect, deliveries)


def _note(
    cursor: CursorWrapper, dialect: Dialect, deliveries: Sequence[Delivery]
) -> list[bool]:
    consumer = token_of(deliveries[0]).consumer
    keys = [key_of(delivery.message.id) for delivery in deliveries]
    known = _known(cursor, consumer, keys)
    fresh: dict[str, int] = {}
    firsts = []
    for key, delivery in zip(keys, deliveries, strict=True):
        firsts.append(key not in known and key not in fresh)
        if firsts[-1]:
            fresh[key] = token_of(delivery).event
    try:
        _insert(cursor, dialect, consumer, fresh)
    except Error as error:
        if _is_taken(error):
            raise RetryLater(PAUSE) from error
        raise
    return firsts


def _known(cursor: CursorWrapper, consumer: int, keys: Iterable[str]) -> set[str]:
    found = set()
    for some in _parts(keys):
        cursor.execute(
            "SELECT message_id FROM gomq_inbox "
            f"WHERE consumer_id = %s AND message_id IN {some}",
            (consumer,),
        )
        found |= {row[0] for row in cursor.fetchall()}
    return found


def _insert(
    cursor: CursorWrapper, dialect: Dialect, consumer: int, fresh: Mapping[str, int]
) -> None:
    # In one order everywhere: two that wait for one another would wait in vain.
    rows = [f"({consumer}, '{key}', {event})" for key, event in sorted(fresh.items())]
    for start in range(0, len(rows), MAX_ROWS):
        insert = (
            "INSERT INTO gomq_inbox (consumer_id, message_id, event_id) "
            f"VALUES {', '.join(rows[start : start + MAX_ROWS])}"
        )
        steps = [dialect.short_wait, insert, dialect.long_wait]
        execute_all(cursor, dialect, list(filter(None, steps)))


def _is_taken(error: Error) -> bool:
    if isinstance(error, IntegrityError):
        return True
    codes = {*error.args[:1], getattr(error.__cause__, "sqlstate", None)}
    return isinstance(error, OperationalError) and bool(codes & _TAKEN)


def _parts(keys: Iterable[str]) -> Iterator[str]:
    """Yield them as what follows IN; they are hexadecimal digits and nothing else."""
    ordered = sorted(set(keys))
    for start in range(0, len(ordered), MAX_ROWS):
        some = ordered[start : start + MAX_ROWS]
        yield f"""({", ".join(f"'{key}'" for key in some)})"""


def forget(
    cursor: CursorWrapper, consumer: int, message_ids: Iterable[str | None]
) -> None:
    """Have a consumer handle messages again that it handled; None is nobody's id."""
    for some in _parts(
        key_of(message_id) for message_id in message_ids if message_id is not None
    ):
        cursor.execute(
            f"DELETE FROM gomq_inbox WHERE consumer_id = %s AND message_id IN {some}",
            (consumer,),
        )


def prune(cursor: CursorWrapper, events: Iterable[int]) -> None:
    """Delete what was noted of these events, where they are deleted themselves.

    So it stays as long as anything may be handed out again.
    """
    cursor.execute(
        f"DELETE FROM gomq_inbox WHERE event_id IN {listed(events)} AND NOT EXISTS "
        "(SELECT 1 FROM gomq_event WHERE gomq_event.id = gomq_inbox.event_id)"
    )
