"""The consumers that ``gomq setup`` recorded: events are dispatched to these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.patterns import Pattern


class Recorded(msgspec.Struct, frozen=True):
    """A consumer that ``setup`` recorded."""

    id: int
    name: str
    patterns: tuple[Pattern, ...] | None
    """None where nobody can read what the row has."""
    is_ordered: bool

    def wants(self, event_type: str) -> bool:
        """Whether events of this type go to it.

        All do where its row cannot be read, so that it misses none: its own code sets
        aside what it does not name.
        """
        if self.patterns is None:
            return True
        return any(pattern.matches(event_type) for pattern in self.patterns)


class Recording(msgspec.Struct, frozen=True):
    """What recording a consumer came to."""

    consumer: Consumer
    is_new: bool
    was: str | None = None
    """The name that it had before."""


RECORDED: Final = "SELECT id, name, types, ordered FROM gomq_consumer ORDER BY id"


def recorded_in(rows: Iterable[tuple[Any, ...]]) -> list[Recorded]:
    """Return what these rows of RECORDED say."""
    return [
        Recorded(number, name, _patterns_in(types), bool(ordered))
        for number, name, types, ordered in rows
    ]


@lru_cache(1024)  # every dispatch reads them
def _patterns_in(types: str) -> tuple[Pattern, ...] | None:
    try:
        return tuple(map(Pattern, msgspec.json.decode(types, type=list[str])))
    except (msgspec.DecodeError, ConfigurationError):
        return None


def recorded_consumers(cursor: CursorWrapper) -> list[Recorded]:
    """Return those that events are dispatched to."""
    cursor.execute(RECORDED)
    return recorded_in(cursor.fetchall())


def problems_of(
    recorded: Sequence[Recorded], consumers: Sequence[Consumer]
) -> list[str]:
    """Return what keeps these consumers from being given events, a sentence each."""
    wanted = {consumer.name for consumer in consumers}
    missing = sorted(wanted - {consumer.name for consumer in recorded})
    broken = sorted(
        consumer.name
        for consumer in recorded
        if consumer.patterns is None and consumer.name in wanted
    )
    told = {"Not recorded": missing, "Recorded with no types to read": broken}
    return [
        f"{what}: {', '.join(of_these)}. Run manage.py gomq setup."
        for what, of_these in told.items()
        if of_these
    ]


def record_consumers(
    cursor: CursorWrapper, consumers: Sequence[Consumer]
) -> list[Recording]:
    """Record these, or what they subscribe to now.

    One that is known by an alias alone keeps its row, and with it all that waits.
    """
    known = {recorded.name for recorded in recorded_consumers(cursor)}
    return [_record(cursor, consumer, known) for consumer in consumers]


def _record(cursor: CursorWrapper, consumer: Consumer, known: set[str]) -> Recording:
    name, types = consumer.name, json.dumps(list(consumer.types))
    was = next((alias for alias in consumer.aliases if alias in known), None)
    is_new = name not in known
    if is_new and was is not None:
        for statement in (
            "UPDATE gomq_consumer SET name = %s WHERE name = %s",
            "UPDATE gomq_dead_letter SET consumer = %s WHERE consumer = %s",
        ):
            cursor.execute(statement, (name, was))
        recording = Recording(consumer, is_new=False, was=was)
    else:
        recording = Recording(consumer, is_new)
    cursor.execute(
        "INSERT INTO gomq_consumer (types, ordered, name) VALUES (%s, %s, %s)"
        if recording.is_new
        else "UPDATE gomq_consumer SET types = %s, ordered = %s WHERE name = %s",
        (types, consumer.ordered_by_key, name),
    )
    return recording


DESIRED: Final = (
    "SELECT name, paused, capacity FROM gomq_consumer "
    "WHERE paused IS NOT NULL OR capacity IS NOT NULL"
)


def desired(row: Sequence[Any]) -> tuple[str, ConsumerState]:
    """Return the name and the state in a row of that statement."""
    name, paused, capacity = row
    return name, ConsumerState(None if paused is None else bool(paused), capacity)


def desire(cursor: CursorWrapper, consumer: str, state: ConsumerState) -> None:
    """Keep how this recorded consumer is to be; what is None stays as it was."""
    cursor.execute(
        "UPDATE gomq_consumer SET paused = COALESCE(%s, paused), "
        "capacity = COALESCE(%s, capacity) WHERE name = %s",
        (state.paused, state.capacity, consumer),
    )


def unsubscribe(cursor: CursorWrapper, consumer: Recorded) -> None:
    """Have no event dispatched to a consumer from now on."""
    cursor.execute(
        "UPDATE gomq_consumer SET types = '[]' WHERE id = %s", (consumer.id,)
    )


def erase(cursor: CursorWrapper, consumer: Recorded) -> None:
    """Forget a consumer that has no deliveries."""
    cursor.execute("DELETE FROM gomq_consumer WHERE id = %s", (consumer.id,))
