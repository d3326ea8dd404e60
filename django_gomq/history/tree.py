"""Why a message is there: what caused it, and what it caused, from kept history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from django_gomq.backends.database.dead_letters import message_of
from django_gomq.backends.database.outbox import hash_of_id
from django_gomq.backends.database.outcomes import DROPPED, GAVE_UP
from django_gomq.backends.database.recording import Recorded, recorded_in
from django_gomq.backends.database.rows import READY, RUNNING, SCHEDULED
from django_gomq.bus.message import Message
from django_gomq.models import (
    DueDelivery,
    EndedDelivery,
    HandledMessage,
    HistoryEvent,
    RecordedConsumer,
    StoredDeadLetter,
)
from django_gomq.site import brokers

MAX_NODES: Final = 500
"""Messages of a tree; what is beyond is left out, and the tree says so."""
MAX_DEPTH: Final = 50
"""Causes above the message that is asked for, and effects below it."""
_STEP: Final = 50
"""Events that are read at a time: an envelope may have a mebibyte."""
_MAX_SAME: Final = 20
"""Rows of one message: it may have been published more than once."""
_MAX_LETTERS: Final = 1000
_LAST: Final = datetime(9998, 12, 31, tzinfo=UTC).timestamp()
_LONG: Final = 100
"""Seconds from which hours and minutes are easier to read."""


class Handling(msgspec.Struct, frozen=True):
    """What one consumer has to do with a message, or has done."""

    consumer: str
    told: str
    """A predicate: "handled it after 0.4 s, in attempt 1"; that is since its emit."""
    letter: int | None = None
    """The dead letter, where it is one."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a tree."""

    id: str
    type: str
    made: float
    """When it was emitted, in seconds since 1970."""
    depth: int
    """How many messages stand above it."""
    handlings: Sequence[Handling]
    """What the tables tell."""
    untold: Sequence[str]
    """Consumers of its type of which they tell nothing."""


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A message between its causes and its effects; nothing beside these."""

    asked: str
    nodes: Sequence[Node]
    """Each before what it caused, as it was emitted."""
    lost_cause: str | None
    """What caused the first of them, where that is not kept, or beyond the bound."""
    is_cut: bool
    """Whether there are more effects than are shown."""


def find(message_id: str) -> Tree | None:
    """Return the tree of a message that a database of this site keeps, if one does.

    Blocks; raises what the database raises.
    """
    trees = (find_in(using, message_id) for using in databases())
    return next((tree for tree in trees if tree is not None), None)


def find_in(using: str, message_id: str) -> Tree | None:
    """Return the tree of a message that this database keeps.

    However much it keeps, it is asked for what an index finds, and for no more than a
    tree may have.
    """
    asked = _find_one(using, message_id)
    return None if asked is None else _tree_of(using, asked)


def databases() -> Sequence[str]:
    """Return the aliases of the databases that keep history."""
    site = brokers.site
    return [] if site is None else list(site.databases)


class _Event(msgspec.Struct, frozen=True):
    """A message that is kept, with the rows that it has."""

    message: Message[Any]
    rows: list[int]

    @property
    def id(self) -> str:
        return self.message.id


def _tree_of(using: str, asked: _Event) -> Tree:
    path, lost_cause = _causes_of(using, asked)
    effects, is_cut = _effects_of(using, path)
    handlings = _Handlings(
        using, [*path, *(event for some in effects.values() for event in some)]
    )
    return Tree(
        asked=asked.id,
        nodes=[
            Node(
                id=event.id,
                type=event.message.type,
                made=event.message.made,
                depth=depth,
                handlings=handlings.of(event),
                untold=handlings.untold(event),
            )
            for depth, event in _in_order(path, effects)
        ],
        lost_cause=lost_cause,
        is_cut=is_cut,
    )


def _in_order(
    path: Sequence[_Event], effects: Mapping[str, Sequence[_Event]]
) -> Iterator[tuple[int, _Event]]:
    yield from enumerate(path[:-1])
    left = [(len(path) - 1, path[-1])]
    while left:
        depth, event = left.pop()
        yield depth, event
        caused = effects.get(event.id, ())
        left += [(depth + 1, event) for event in reversed(caused)]


def _find_one(using: str, message_id: str) -> _Event | None:
    rows = HistoryEvent.objects.using(using).filter(message_hash=hash_of_id(message_id))
    found = _read(using, rows.values_list("id", flat=True)[:_MAX_SAME])
    return found.get(message_id)


def _read(using: str, rows: Iterable[int]) -> Mapping[str, _Event]:
    """Return the messages in these rows of history, by their ids, oldest first."""
    numbers, found = sorted(rows), dict[str, _Event]()
    for start in range(0, len(numbers), _STEP):
        some = HistoryEvent.objects.using(using).filter(
            id__in=numbers[start : start + _STEP]
        )
        for row in some.order_by("id"):
            message = message_of(row.type, bytes(row.envelope))
            found.setdefault(message.id, _Event(message, [])).rows.append(row.id)
    return found


def _causes_of(using: str, asked: _Event) -> tuple[Sequence[_Event], str | None]:
    """Return the way down to a message, and what caused its first that is not there."""
    path = [asked]
    while (cause := path[0].message.causation_id) is not None:
        # Of others, a message may be named as its own cause.
        is_known = any(event.id == cause for event in path)
        found = None if is_known else _find_one(using, cause)
        if found is None or len(path) > MAX_DEPTH:
            return path, cause
        path.insert(0, found)
    return path, None


def _effects_of(
    using: str, path: Sequence[_Event]
) -> tuple[Mapping[str, Sequence[_Event]], bool]:
    """Return what each message caused, by its id, and whether there is more."""
    effects, seen = defaultdict[str, list[_Event]](list), {event.id for event in path}
    level, room, is_cut = [path[-1].id], MAX_NODES - len(path), False
    for _ in range(MAX_DEPTH):
        if not level:
            return effects, is_cut
        caused = HistoryEvent.objects.using(using).filter(
            causation_hash__in=[hash_of_id(message_id) for message_id in level]
        )
        rows = list(caused.values_list("id", flat=True)[: room + 1])
        is_cut = is_cut or len(rows) > room
        causes, level = set(level), []
        for event in _read(using, rows[:room]).values():
            cause = event.message.causation_id
            if cause in causes and event.id not in seen:
                effects[cause].append(event)
                level.append(event.id)
        seen.update(level)
        room -= len(level)
    return effects, is_cut or bool(level)


class _Handlings:
    """What the tables tell of these events."""

    def __init__(self, using: str, events: Sequence[_Event]) -> None:
        consumers = RecordedConsumer.objects.using(using).order_by("id")
        self._consumers = {
            consumer.id: consumer
            for consumer in recorded_in(
                consumers.values_list("id", "name", "types", "ordered")
            )
        }
        self._of_rows = defaultdict[int, list[Handling]](list)
        self._of_ids = defaultdict[str, list[Handling]](list)
        for start in range(0, len(events), _STEP):
            some = events[start : start + _STEP]
            rows = [row for event in some for row in event.rows]
            self._read_letters(using, [event.id for event in some])
            self._read_ended(using, some)
            self._read_inbox(using, rows)
            self._read_deliveries(using, rows)

    def of(self, event: _Event) -> Sequence[Handling]:
        """Return what is told of one, by consumer; what was, before what is."""
        found = [handling for row in event.rows for handling in self._of_rows[row]]
        return sorted(
            [*self._of_ids[event.id], *found], key=lambda handling: handling.consumer
        )

    def untold(self, event: _Event) -> Sequence[str]:
        """Return the consumers that subscribe to its type and of which nothing is."""
        known = {handling.consumer for handling in self.of(event)}
        return sorted(
            consumer.name
            for consumer in self._consumers.values()
            if consumer.name not in known and consumer.wants(event.message.type)
        )

    def _name(self, number: int) -> str:
        consumer: Recorded | None = self._consumers.get(number)
        return f"consumer {number}" if consumer is None else consumer.name

    def _read_deliveries(self, using: str, rows: Sequence[int]) -> None:
        found = DueDelivery.objects.using(using).filter(event_id__in=rows)
        fields = "event_id", "consumer_id", "state", "attempt", "due"
        for row, consumer, state, attempt, due in found.values_list(*fields):
            told = _told_of_delivery(state, attempt, due)
            self._of_rows[row].append(Handling(self._name(consumer), told))

    def _read_ended(self, using: str, events: Sequence[_Event]) -> None:
        of_row = {row: event for event in events for row in event.rows}
        found = EndedDelivery.objects.using(using).filter(event_id__in=of_row)
        fields = "event_id", "consumer_id", "attempt", "outcome", "ended"
        for row, number, attempt, outcome, ended in found.values_list(*fields):
            event, consumer = of_row[row], self._name(number)
            letters = {handling.consumer for handling in self._of_ids[event.id]}
            if outcome != GAVE_UP or consumer not in letters:
                seconds = ended - event.message.made
                told = _told_of_outcome(outcome, attempt, seconds)
                self._of_rows[row].append(Handling(consumer, told))

    def _read_inbox(self, using: str, rows: Sequence[int]) -> None:
        found = HandledMessage.objects.using(using).filter(event_id__in=rows)
        for row, number in found.values_list("event_id", "consumer_id"):
            consumer = self._name(number)
            if all(handling.consumer != consumer for handling in self._of_rows[row]):
                self._of_rows[row].append(Handling(consumer, "handled it"))

    def _read_letters(self, using: str, ids: Sequence[str]) -> None:
        found = StoredDeadLetter.objects.using(using).filter(message_id__in=ids)
        fields = "message_id", "id", "consumer", "attempt", "error_type"
        for message, number, consumer, attempt, error in found.values_list(*fields)[
            :_MAX_LETTERS
        ]:
            told = f"gave up in attempt {attempt}: {error}"
            self._of_ids[message].append(Handling(consumer, told, number))


def _told_of_outcome(outcome: int, attempt: int, seconds: float) -> str:
    did = {GAVE_UP: "gave up", DROPPED: "dropped it as too old"}.get(
        outcome, "handled it"
    )
    return f"{did} after {_told_span(seconds)}, in attempt {attempt}"


def _told_span(seconds: float) -> str:
    if seconds < _LONG:
        return f"{max(0.0, seconds):.3g} s"
    return str(timedelta(seconds=round(min(seconds, _LAST))))


def _told_of_delivery(state: int, attempt: int, due: float | None) -> str:
    if state == RUNNING:
        return f"is at it, attempt {attempt}"
    if state == SCHEDULED and due is not None:
        return f"waits for attempt {attempt}, due {told_moment(due)}"
    if state in (READY, SCHEDULED):
        return f"waits for attempt {attempt}"
    return f"waits for attempt {attempt}: its process died"


def told_moment(seconds: float) -> str:
    """Return a time of a message, in seconds since 1970, in words."""
    if not 0 <= seconds < _LAST:
        return "at no day that a calendar has"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
