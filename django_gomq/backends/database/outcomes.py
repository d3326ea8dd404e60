"""How a consumer ended with an event: rows for people who ask what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import Settlement
from django_gomq.bus.delivery import Ack, DeadLettered, Dropped, Outcome

from .connection import Dialect
from .rows import listed, token_of

HANDLED: Final = 0
"""Its handler has returned."""
DROPPED: Final = 1
"""It was too old for its consumer."""
GAVE_UP: Final = 2
"""It became a dead letter."""

_INTO: Final = (
    "INTO gomq_ended_delivery (event_id, consumer_id, attempt, outcome, ended) VALUES "
)
_OVER: Final = (
    " ON CONFLICT (event_id, consumer_id) DO UPDATE SET attempt = excluded.attempt, "
    "outcome = excluded.outcome, ended = excluded.ended"
)


def keep(
    cursor: CursorWrapper, dialect: Dialect, settlements: Sequence[Settlement]
) -> None:
    """Write how these ended, over what was written before a replay.

    Retries have not ended. The time is that of this process, as of messages: nothing
    goes by it.
    """
    now, rows = time.time(), []
    for settlement in settlements:
        code = _code_of(settlement.outcome)
        if code is not None:
            token, attempt = token_of(settlement.delivery), settlement.delivery.attempt
            rows.append(
                f"({token.event}, {token.consumer}, {attempt}, {code}, {now!r})"
            )
    if rows:
        verb, end = ("REPLACE ", "") if dialect.has_replace else ("INSERT ", _OVER)
        cursor.execute(f"{verb}{_INTO}{', '.join(rows)}{end}")


def _code_of(outcome: Outcome) -> int | None:
    match outcome:
        case Ack():
            return HANDLED
        case DeadLettered():
            return GAVE_UP
        case Dropped():
            return DROPPED
        case _:
            return None


def prune(cursor: CursorWrapper, events: Iterable[int]) -> None:
    """Delete how these events ended, where they are deleted themselves."""
    cursor.execute(
        f"DELETE FROM gomq_ended_delivery WHERE event_id IN {listed(events)} "
        "AND NOT EXISTS (SELECT 1 FROM gomq_event "
        "WHERE gomq_event.id = gomq_ended_delivery.event_id)"
    )
