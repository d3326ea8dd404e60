"""What an entry of a stream is: how it is written, read, and held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from django_gomq.bus.backend import REPLAYED, Inbox
from django_gomq.bus.consumer import Consumer, seconds_to_wait
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.event import version_of
from django_gomq.bus.message import Message
from django_gomq.bus.wire import (
    WireMessage,
    decode_binary,
    decode_structured,
    encode_structured,
)

MAX_BODY: Final = 2**30
"""Bytes: what is at the server was checked when it was emitted."""
EVENT: Final = b"event"
"""The field with the event itself, a CloudEvent as one JSON object."""
DATA: Final = b"data"
"""The field with the body of an event in binary mode; its attributes are beside it."""

Fields = Sequence[bytes]
Place = tuple[str, str, bytes]
"""A consumer, a stream, and the id of an entry: each consumer holds it for itself."""
Row = tuple[bytes, int, Fields]
"""Its id, how often it was handed out, and its fields."""


class Token(msgspec.Struct, frozen=True):
    """Names an entry, and the handing-out of it that is meant."""

    consumer: str
    stream: str
    id: bytes
    deliveries: int
    """The server's count of this entry, which fences."""
    event: bytes
    """As it came: what is handed out once more, or given up, is not written anew."""
    earlier: int = 0
    """How often it was handed out as another entry."""
    attempt: int = 1
    failed: float | None = None
    """When its first attempt failed, in seconds since 1970 at the server."""
    replayed: bool = False
    error: DecodeError | None = None
    """What is wrong with an event in binary mode."""


def place_of(token: Token) -> Place:
    """Return for whom and which entry it is, whichever handing-out of it."""
    return token.consumer, token.stream, token.id


def write(message: Message[Any], source: str) -> bytes:
    """Return an event as it stands at the server. Raises EncodeError."""
    return encode_structured(message, source=source, version=version_of(message.type))


def rewrite(event: WireMessage) -> bytes:
    """Return an event that others made, as they would write it. Raises EncodeError."""
    return encode_structured(event.message, source=event.source, version=event.version)


def token_of(delivery: Delivery) -> Token:
    """Return what a delivery of ours is settled by."""
    assert isinstance(delivery.token, Token)  # noqa: S101 - we made it
    return delivery.token


def fields_again(token: Token, *, fails: bool, unstarted: bool) -> list[Any]:
    """Return the fields of the entry that takes the place of one."""
    fields: list[Any] = [EVENT, token.event, "attempt", token.attempt + fails]
    if token.failed is not None:
        fields += ["failed", repr(token.failed)]
    if token.replayed:
        fields += ["replayed", 1]
    # After an end that somebody told of, it has not killed anybody.
    handed_out = token.earlier + token.deliveries - 1 if unstarted else 0
    if handed_out:
        fields += ["deliveries", handed_out]
    return fields


def token_in(consumer: str, stream: str, row: Row) -> Token:
    """Return what an entry is settled by; what is wrong with it counts for nothing."""
    name, deliveries, fields = row
    if len(fields) == 2 and fields[0] == EVENT:  # noqa: PLR2004 - a name and a value
        return Token(consumer, stream, name, deliveries, fields[1])
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    event = found.get(EVENT)
    if event is None:
        event, error = _structured(found)
        return Token(consumer, stream, name, deliveries, event, error=error)
    failed = _number_in(found, b"failed", float)
    return Token(
        consumer,
        stream,
        name,
        deliveries,
        event,
        earlier=_number_in(found, b"deliveries", int) or 0,
        attempt=max(1, _number_in(found, b"attempt", int) or 1),
        failed=failed or None,
        replayed=b"replayed" in found,
    )


def event_in(fields: Fields) -> bytes:
    """Return the event of an entry as one JSON object, in whichever mode it came."""
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    event = found.get(EVENT)
    return _structured(found)[0] if event is None else event


def _structured(found: Mapping[bytes, bytes]) -> tuple[bytes, DecodeError | None]:
    """Return an event in binary mode as one object, or as it came and what is wrong.

    What is handed out once more, or given up, is written in this one way.
    """
    texts = {name.decode(errors="replace"): found[name] for name in found}
    body = texts.pop(DATA.decode(), b"")
    try:
        read = decode_binary(texts, body, max_body_bytes=MAX_BODY)
        return encode_structured(
            read.message, source=read.source, version=read.version
        ), None
    except DecodeError as error:
        failure = error
    shown = {name: str(value, errors="replace") for name, value in texts.items()}
    return msgspec.json.encode({**shown, "data": str(body, errors="replace")}), failure


def _number_in(
    found: Mapping[bytes, bytes], name: bytes, kind: type[int | float]
) -> Any:
    try:
        return kind(found[name])
    except (KeyError, ValueError):
        return None


class Opened(msgspec.Struct, frozen=True):
    """What became of the entries that were read for one consumer."""

    deliveries: Sequence[Delivery]
    set_aside: Sequence[tuple[Token, float]]
    """What other code is to read, and in how many seconds."""


def open_entries(
    consumer: Consumer, tokens: Sequence[Token], ahead: float, inbox: Inbox
) -> Opened:
    """Return what this code can handle, and what waits for another.

    What nobody can read, or nobody has read in its time, goes to the dead letters of
    the consumer. ``ahead`` is our monotonic clock less the server's, in seconds.
    """
    deliveries, set_aside = [], []
    for token in tokens:
        message: Message[Any] | None = None
        try:
            read = _read(token)
            message = read.message
            pause = seconds_to_wait(consumer, read)
        except DecodeError as error:
            inbox.quarantine(consumer.name, token.event, error, token, message)
            continue
        if pause is not None:
            set_aside.append((token, pause))
            continue
        if token.replayed:
            message.add_headers({REPLAYED: "true"})
        available = int(token.id.partition(b"-")[0]) / 1000 + ahead
        times = token.earlier + token.deliveries
        failed = token.failed
        deliveries.append(
            Delivery(
                message, available, token.attempt, token, times, first_failed=failed
            )
        )
    return Opened(deliveries, set_aside)


def _read(token: Token) -> WireMessage:
    if token.error is not None:
        raise token.error
    return decode_structured(token.event, max_body_bytes=MAX_BODY)
