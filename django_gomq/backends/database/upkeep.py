"""Looks after the tables: deletes what is done, and what nobody waits for."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from django.db.backends.utils import CursorWrapper

from django_gomq.bus.dead_letters import DeadLetter, trace_id_of

from . import dead_letters, inbox, outcomes
from .connection import Dialect, OwnConnection
from .processes import forget
from .recording import Recorded
from .rows import MAX_STEP, listed

REMOVED: Final = "ConsumerRemoved"
"""The class of error of what waited for a consumer that was removed."""


PRUNING_PAUSE: Final = 60.0
"""Seconds until it is asked again what is old, where nothing was left."""
LONGEST_PRUNING: Final = 0.1
"""Seconds after which deliveries have their turn."""
PRUNING_SHARE: Final = 0.2
"""Of the time of the reader, where history is deleted as fast as it can be."""


class Pruning:
    """Deletes history as fast as it grows old, in short steps; of one thread.

    And the rows of processes that ended long ago. Each process does: none takes rows
    that another one deletes.
    """

    def __init__(self, history: float) -> None:
        self._history = history
        self._due = 0.0

    def run(self, connection: OwnConnection) -> None:
        """Delete what is older than the history, if that is due. Blocks for a moment.

        Goes on at a later call where something is left.
        """
        began = now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PRUNING_PAUSE  # whatever becomes of it
        connection.run(partial(forget, dialect=connection.dialect))
        step = partial(prune, dialect=connection.dialect, seconds=self._history)
        while connection.run(step) == MAX_STEP:
            now = time.monotonic()
            if now > began + LONGEST_PRUNING:
                self._due = now + (now - began) * (1 / PRUNING_SHARE - 1)
                return


def prune(cursor: CursorWrapper, dialect: Dialect, seconds: float) -> int:
    """Delete events that are older, and done; return how many."""
    cursor.execute(
        "SELECT id FROM gomq_event event "
        f"WHERE made < (SELECT {dialect.now}) - %s AND NOT EXISTS "
        "(SELECT 1 FROM gomq_delivery delivery WHERE delivery.event_id = event.id) "
        f"ORDER BY made LIMIT {MAX_STEP} {dialect.lock}",
        (seconds,),
    )
    rows = cursor.fetchall()
    if rows:
        # Asked once more: a replay may have had the event since.
        cursor.execute(
            f"DELETE FROM gomq_event WHERE id IN {listed(row[0] for row in rows)} "
            "AND NOT EXISTS "
            "(SELECT 1 FROM gomq_delivery WHERE event_id = gomq_event.id)"
        )
        inbox.prune(cursor, [row[0] for row in rows])
        outcomes.prune(cursor, [row[0] for row in rows])
    return len(rows)


def clear(
    cursor: CursorWrapper, dialect: Dialect, consumer: Recorded, broker: str | None
) -> int:
    """Take some deliveries of a consumer away; return how many there were.

    They are dead letters of that broker then, or discarded where none is given.
    """
    cursor.execute(
        "SELECT delivery.event_id, delivery.attempt, delivery.first_failed, "
        "event.type, event.envelope FROM gomq_delivery delivery "
        "JOIN gomq_event event ON event.id = delivery.event_id "
        f"WHERE delivery.consumer_id = %s ORDER BY delivery.event_id LIMIT {MAX_STEP}",
        (consumer.id,),
    )
    rows = cursor.fetchall()
    for event, attempt, first_failed, event_type, envelope in rows:
        if broker is None:
            continue
        message = dead_letters.message_of(event_type, bytes(envelope))
        now = time.time()
        letter = DeadLetter(
            id="",
            message=message,
            broker=broker,
            consumer=consumer.name,
            attempt=attempt,
            error_type=REMOVED,
            error=f"{REMOVED}: it waited when its consumer was removed",
            trace_id=trace_id_of(message),
            first_failed=now,
            time=now,
        )
        dead_letters.keep(cursor, dialect, event, letter, first_failed)
    cursor.executemany(
        "DELETE FROM gomq_delivery WHERE event_id = %s AND consumer_id = %s",
        [(row[0], consumer.id) for row in rows],
    )
    return len(rows)
