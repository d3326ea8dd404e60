"""Claims deliveries for this process: what is ready, in order, and what is suspect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import Want
from django_gomq.bus.message import DEFAULT_PRIORITY, MAX_PRIORITY

from .connection import Dialect
from .outbox import hash_of_key
from .rows import (
    READY,
    RUNNING,
    SCHEDULED,
    SUSPECT,
    Row,
    events_by_consumer,
    listed,
)

MAX_PROMOTED: Final = 1000

_ORDERED: Final = MAX_PRIORITY - DEFAULT_PRIORITY  # what is ordered has no priority


class Work(msgspec.Struct, frozen=True):
    """What there is to do, as one look at the tables found it."""

    to_dispatch: bool
    to_promote: bool
    ready: frozenset[int]
    """Consumers with ready deliveries."""
    suspect: frozenset[int]
    """Consumers with suspect ones."""
    has_desires: bool = False
    """Operators want some consumer to be otherwise than it was declared."""

    def __bool__(self) -> bool:
        return bool(self.to_dispatch or self.to_promote or self.ready or self.suspect)


FRESH: Final = Work(
    to_dispatch=True, to_promote=False, ready=frozenset(), suspect=frozenset()
)
"""What this process has published, and nothing else."""

_DESIRES: Final = (
    "EXISTS (SELECT 1 FROM gomq_consumer "
    "WHERE paused IS NOT NULL OR capacity IS NOT NULL)"
)
# In the order of its index: so no planner looks through the table for the first one.
_ANY: Final = (
    "(SELECT 1 FROM gomq_delivery WHERE consumer_id = %s AND state = {state} "
    "ORDER BY precedence, event_id LIMIT 1)"
)
_ANY_DUE: Final = (
    f"(SELECT 1 FROM gomq_delivery WHERE state = {SCHEDULED} "
    "AND due <= (SELECT {now}) ORDER BY due LIMIT 1)"
)


def look_statement(
    dialect: Dialect, has_event: str, consumers: Sequence[int]
) -> tuple[str, list[int]]:
    """Return the one statement, and its values, that ``work_in`` reads the answer of.

    ``has_event`` asks whether there is any event in the outbox. However many consumers
    there are, an idle worker asks once.
    """
    questions = [
        has_event,
        _ANY_DUE.format(now=dialect.now),
        _DESIRES,
    ]
    for _ in consumers:
        questions += [_ANY.format(state=READY), _ANY.format(state=SUSPECT)]
    values = [number for number in consumers for _ in (READY, SUSPECT)]
    return f"SELECT {', '.join(questions)}", values


def work_in(answer: Sequence[Any], consumers: Sequence[int]) -> Work:
    """Return what the answer to that statement says."""
    to_dispatch, to_promote, has_desires, *by_consumer = map(bool, answer)
    return Work(
        to_dispatch,
        to_promote,
        frozenset(
            number
            for number, found in zip(consumers, by_consumer[::2], strict=True)
            if found
        ),
        frozenset(
            number
            for number, found in zip(consumers, by_consumer[1::2], strict=True)
            if found
        ),
        has_desires,
    )


def promote(cursor: CursorWrapper, dialect: Dialect) -> None:
    """Make ready what is due."""
    cursor.execute(
        "SELECT event_id, consumer_id FROM gomq_delivery "
        f"WHERE state = {SCHEDULED} AND due <= (SELECT {dialect.now}) "
        f"ORDER BY due LIMIT {MAX_PROMOTED} {dialect.lock}"
    )
    _set_state(cursor, READY, cursor.fetchall())


def _set_state(
    cursor: CursorWrapper, state: int, rows: Iterable[Sequence[int]]
) -> None:
    for consumer, events in events_by_consumer(rows).items():
        cursor.execute(
            f"UPDATE gomq_delivery SET state = {state} "
            f"WHERE consumer_id = %s AND event_id IN {listed(events)}",
            (consumer,),
        )


_CLAIM = (
    f"UPDATE gomq_delivery SET state = {RUNNING}, lease = %s "
    "WHERE consumer_id = %s AND event_id IN "
)
_READ = (
    "SELECT delivery.event_id, event.envelope, "
    "{now} - coalesce(delivery.due, event.made), delivery.attempt, delivery.deaths, "
    "delivery.replayed "
    "FROM gomq_delivery delivery JOIN gomq_event event ON event.id = delivery.event_id "
    "WHERE delivery.lease = %s AND delivery.consumer_id = %s "
    "ORDER BY delivery.precedence, delivery.event_id"
)


def _take(
    cursor: CursorWrapper,
    dialect: Dialect,
    consumer: int,
    lease: int,
    events: set[int],
) -> list[Row]:
    if not events:
        return []
    cursor.execute(f"{_CLAIM}{listed(events)}", (lease, consumer))
    cursor.execute(_READ.format(now=dialect.now), (lease, consumer))
    return [
        Row(event, consumer, lease, bytes(envelope), *others)
        for event, envelope, *others in cursor.fetchall()
        if event in events  # a suspect may have been taken by the same claim
    ]


def claim(
    cursor: CursorWrapper, dialect: Dialect, consumer: int, room: int, lease: int
) -> list[Row]:
    """Claim ready deliveries, highest priority first, then as they were emitted."""
    cursor.execute(
        "SELECT event_id FROM gomq_delivery "
        f"WHERE consumer_id = %s AND state = {READY} "
        f"ORDER BY precedence, event_id LIMIT %s {dialect.lock}",
        (consumer, room),
    )
    events = {row[0] for row in cursor.fetchall()}
    return _take(cursor, dialect, consumer, lease, events)


def claim_suspect(
    cursor: CursorWrapper,
    dialect: Dialect,
    consumer: int,
    lease: int,
    ours: tuple[int, int],
) -> list[Row]:
    """Claim one suspect, if this process holds none.

    What killed a process is among what that process held. Handled one by one, only the
    culprit kills again.
    """
    cursor.execute(
        "SELECT 1 FROM gomq_delivery "
        "WHERE lease >= %s AND lease < %s AND deaths > 0 LIMIT 1",
        ours,
    )
    if cursor.fetchone():
        return []
    cursor.execute(
        "SELECT event_id FROM gomq_delivery suspect "
        f"WHERE consumer_id = %s AND state = {SUSPECT} AND (key_hash IS NULL "
        "OR NOT EXISTS (SELECT 1 FROM gomq_delivery other "
        "WHERE other.consumer_id = suspect.consumer_id "
        "AND other.key_hash = suspect.key_hash "
        f"AND (other.event_id < suspect.event_id OR other.state = {RUNNING}))) "
        f"ORDER BY precedence, event_id LIMIT 1 {dialect.lock}",
        (consumer,),
    )
    events = {row[0] for row in cursor.fetchall()}
    return _take(cursor, dialect, consumer, lease, events)


def has_turn(cursor: CursorWrapper, dialect: Dialect, consumer: int) -> bool:
    """Whether no other process claims for this consumer, until this transaction ends.

    What two claim at a time, neither of them sees: both could have the same key.
    """
    cursor.execute(
        f"SELECT 1 FROM gomq_consumer WHERE id = %s {dialect.lock}", (consumer,)
    )
    return cursor.fetchone() is not None


def claim_ordered(
    cursor: CursorWrapper,
    dialect: Dialect,
    consumer: int,
    want: Want,
    lease: int,
    ours: tuple[int, int],
) -> list[Row]:
    """Claim ready deliveries that have nothing of their key before them elsewhere.

    Nor in work elsewhere: it may be later and be there first, as where an event commits
    late or is replayed. What is held here the bus starts first. Wants ``has_turn``.
    """
    # First: what another process dispatches at this moment is still in the outbox for
    # us, and not yet among the deliveries.
    cursor.execute(
        "SELECT min(id) FROM gomq_outbox "
        "WHERE precedence = %s AND key_hash IS NOT NULL",
        (_ORDERED,),
    )
    (lowest,) = cursor.fetchone()
    conditions, values = [f"consumer_id = %s AND state = {READY}"], [consumer]
    if lowest is not None:
        conditions.append("(key_hash IS NULL OR event_id < %s)")
        values.append(lowest)
    busy = sorted({hash_of_key(key) or 0 for key in want.busy_keys})
    if busy:  # others of these would only wait here
        marks = ", ".join(["%s"] * len(busy))
        conditions.append(f"(key_hash IS NULL OR key_hash NOT IN ({marks}))")
        values += busy
    cursor.execute(
        "SELECT event_id, key_hash FROM gomq_delivery "
        f"WHERE {' AND '.join(conditions)} "
        f"ORDER BY precedence, event_id LIMIT %s {dialect.lock}",
        (*values, want.room),
    )
    candidates = cursor.fetchall()
    blocked = _first_blocked(cursor, consumer, candidates, ours)
    events = {
        event
        for event, key_hash in candidates
        if key_hash is None or event < blocked.get(key_hash, event + 1)
    }
    return _take(cursor, dialect, consumer, lease, events)


def _first_blocked(
    cursor: CursorWrapper,
    consumer: int,
    candidates: Sequence[tuple[int, int | None]],
    ours: tuple[int, int],
) -> Mapping[int, int]:
    """Return, by key, the first event that is neither held here nor a candidate.

    Before all events, where another process has one of the key in work.
    """
    keys = sorted({key for _, key in candidates if key is not None})
    if not keys:
        return {}
    last = max(event for event, _ in candidates)
    marks = ", ".join(["%s"] * len(keys))
    cursor.execute(
        "SELECT key_hash, event_id FROM gomq_delivery "
        f"WHERE consumer_id = %s AND key_hash IN ({marks}) AND event_id <= %s "
        f"AND NOT (state = {RUNNING} AND lease >= %s AND lease < %s) "
        "UNION ALL SELECT key_hash, -1 FROM gomq_delivery "
        f"WHERE consumer_id = %s AND state = {RUNNING} AND key_hash IN ({marks}) "
        "AND NOT (lease >= %s AND lease < %s)",
        (consumer, *keys, last, *ours, consumer, *keys, *ours),
    )
    ready = {event for event, _ in candidates}
    blocked: dict[int, int] = {}
    for key, event in cursor.fetchall():
        if event not in ready:
            blocked[key] = min(event, blocked.get(key, event))
    return blocked
