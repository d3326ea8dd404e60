"""The dead letters at the server: a stream for each consumer."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.errors import DecodeError, MessageError
from django_gomq.bus.message import Message
from django_gomq.bus.wire import decode_structured

from .entries import EVENT, MAX_BODY, Token, write
from .keys import Keys
from .operator_scripts import CLAIM_DEAD, HAND_AGAIN, REPLAY
from .scripts import Command
from .server import ServerConnection

_ID: Final = re.compile(r"([0-9]{15})-([0-9]{10})\.([A-Za-z0-9_.:-]{1,200})")


class LetterRecord(msgspec.Struct, frozen=True):
    """What was kept of a dead letter beside its event."""

    type: str = "_unknown"
    broker: str = ""
    attempt: int = 1
    error_type: str = ""
    error: str = ""
    traceback: str = ""
    trace_id: str = ""
    first_failed: float | None = None
    took: float = 0.0


def written(letter: DeadLetter, token: Token) -> Sequence[Any]:
    """Return the fields of the entry that keeps a dead letter.

    What only the process knows of times is told by another clock: its distance counts.
    """
    told = LetterRecord(
        type=letter.message.type,
        broker=letter.broker,
        attempt=letter.attempt,
        error_type=letter.error_type,
        error=letter.error,
        traceback=letter.traceback,
        trace_id=letter.trace_id,
        first_failed=token.failed,
        took=letter.time - letter.first_failed,
    )
    return EVENT, token.event, "letter", msgspec.json.encode(told)


def listed(
    connection: ServerConnection, keys: Keys, after: str, limit: int
) -> list[DeadLetter]:
    """Return dead letters of all consumers, oldest first, behind that id."""
    (names,) = connection.run(("SMEMBERS", keys.dead_of))
    place = _ID.fullmatch(after)
    first = f"{int(place[1])}-{int(place[2])}" if place else "-"
    # One more: that of the id itself may be among them.
    asked = [
        ("XRANGE", keys.dead(name.decode()), first, "+", "COUNT", limit + 1)
        for name in names
    ]
    found = connection.run(*asked) if asked else []
    letters = (
        _read(name.decode(), entry)
        for name, entries in zip(names, found, strict=True)
        for entry in entries
    )
    later = (letter for letter in letters if letter.id > after)
    return heapq.nsmallest(limit, later, key=lambda letter: letter.id)


def _read(consumer: str, entry: Any) -> DeadLetter:
    name, fields = entry
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        told = msgspec.json.decode(found[b"letter"], type=LetterRecord)
    except (KeyError, msgspec.MsgspecError):
        told = LetterRecord(error="It cannot be read: somebody else has written it.")
    event = found.get(EVENT, b"")
    milliseconds, _, number = name.decode().partition("-")
    time = int(milliseconds) / 1000
    first_failed = told.first_failed
    return DeadLetter(
        id=f"{int(milliseconds):015d}-{int(number):010d}.{consumer}",
        message=message_in(told.type, event),
        broker=told.broker,
        consumer=consumer,
        attempt=told.attempt,
        error_type=told.error_type,
        error=told.error,
        traceback=told.traceback,
        trace_id=told.trace_id,
        first_failed=time - told.took if first_failed is None else first_failed,
        time=time,
    )


def message_in(event_type: str, event: bytes) -> Message[Any]:
    """Return the message of a dead letter; its body is the event if that is none."""
    try:
        return decode_structured(event, max_body_bytes=MAX_BODY).message
    except DecodeError:  # that is why it is a dead letter
        return Message(event_type, event)


def _places(ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return consumer and entry of those ids that are some."""
    found = map(_ID.fullmatch, ids)
    return [(match[3], f"{int(match[1])}-{int(match[2])}") for match in found if match]


def replay(connection: ServerConnection, keys: Keys, ids: Sequence[str]) -> int:
    """Hand dead letters to their consumers again; return how many.

    One whose consumer is not set up any more stays where it is.
    """
    return _sum(
        connection,
        [
            REPLAY([keys.dead(name), keys.again(name), keys.consumers], name, entry)
            for name, entry in _places(ids)
        ],
    )


def claim(connection: ServerConnection, keys: Keys, owner: str, seconds: float) -> bool:
    """Have one process alone move them, for so long; return whether it may."""
    milliseconds = f"{seconds * 1000:.0f}"
    return bool(connection.run(CLAIM_DEAD([keys.moving], owner, milliseconds))[0])


def hand_again(
    connection: ServerConnection,
    keys: Keys,
    letters: Sequence[DeadLetter],
    source: str,
) -> list[DeadLetter]:
    """Hand those of a store to their consumers again; return which."""
    asked = [
        HAND_AGAIN(
            [keys.again(letter.consumer), keys.consumers],
            letter.consumer,
            _event_of(letter, source),
        )
        for letter in letters
    ]
    answers = connection.run(*asked) if asked else []
    return [letter for letter, took in zip(letters, answers, strict=True) if took]


def _event_of(letter: DeadLetter, source: str) -> bytes:
    try:
        return write(letter.message, source)
    except MessageError:  # it could not be read either
        return letter.message.body


def discard(connection: ServerConnection, keys: Keys, ids: Sequence[str]) -> int:
    """Delete dead letters; return how many there were."""
    return _sum(
        connection, [("XDEL", keys.dead(name), entry) for name, entry in _places(ids)]
    )


def _sum(connection: ServerConnection, commands: Sequence[Command]) -> int:
    return sum(connection.run(*commands)) if commands else 0
