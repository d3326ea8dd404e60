"""Events to JSON bytes and back, checked both ways; it knows no queue."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .errors import ConfigurationError, DecodeError, EncodeError
from .event import Event, EventMeta
from .message import Message

Decode = Callable[[Message[Any]], Any]
Adapt = Callable[[Any], Any]
"""Turns a foreign value into one that JSON has, or raises EncodeError with advice."""

MAX_DEPTH: Final = 100  # far below where a C stack ends, far above what events need


def no_adapt(value: Any) -> Any:
    """Refuse every value that msgspec does not know."""
    raise EncodeError(
        f"{type(value).__name__} has no JSON form: pass numbers, texts, lists, dicts, "
        "datetimes, UUIDs, Decimals or enums."
    )


class JsonCodec:
    """Encodes and decodes; thread-safe, never blocks."""

    def __init__(self, adapt: Adapt = no_adapt) -> None:
        self._adapt = adapt
        self._encode = msgspec.json.Encoder(enc_hook=adapt).encode

    def encode(self, event_type: str, data: object) -> bytes:
        """Return the data as JSON.

        Raises EncodeError, which names the event type, for what JSON cannot say:
        NaN, foreign objects, circles.
        """
        try:
            body = self._encode(data)
        except EncodeError as error:
            error.event = event_type
            raise
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise EncodeError(
                f"{event_type}: {str(error) or type(error).__name__}", event=event_type
            ) from error
        # msgspec writes NaN as null; only bodies with a null are worth a walk.
        if b"null" in body:
            _refuse_nan(event_type, data)
        return body

    def encode_event(self, event: Event) -> bytes:
        """Return a typed event as JSON, after decoding it again as a check.

        Raises EncodeError if a field does not have its declared type.
        """
        event_type = type(event).__event_type__
        body = self.encode(event_type, event)
        try:
            _decoder(type(event)).decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EncodeError(f"{event_type}: {error}", event=event_type) from None
        return body


def decode_as(event_class: EventMeta) -> Decode:
    """Return the function that decodes a message's body as this Event class."""
    decoder = _decoder(event_class)

    def decode(message: Message[Any]) -> Any:
        try:
            return decoder.decode(message.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise DecodeError(
                f"The body does not fit {event_class.__qualname__}: {error}",
                event=message.type,
            ) from None

    return decode


@functools.cache
def _decoder(event_class: EventMeta) -> msgspec.json.Decoder[Any]:
    try:
        return msgspec.json.Decoder(event_class)
    except TypeError as error:
        raise ConfigurationError(
            f"Event class {event_class.__qualname__} has a field that JSON cannot "
            f"carry: {error}",
            event=event_class.__event_type__,
        ) from error


def _refuse_nan(event_type: str, data: object) -> None:
    for value in _leaves(event_type, data, 0):
        if isinstance(value, float) and not math.isfinite(value):
            raise EncodeError(
                f"{event_type}: {value!r} has no JSON form: leave the field out, or "
                "pass None.",
                event=event_type,
            )


def _leaves(event_type: str, value: object, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise EncodeError(
            f"{event_type}: nested deeper than {MAX_DEPTH}.", event=event_type
        )
    match value:
        case dict():
            children: Any = value.values()
        case list() | tuple() | set() | frozenset():
            children = value
        case msgspec.Struct():
            children = (getattr(value, name) for name in value.__struct_fields__)
        case _ if dataclasses.is_dataclass(value):
            children = (getattr(value, one.name) for one in dataclasses.fields(value))
        case _:
            yield value
            return
    for child in children:
        yield from _leaves(event_type, child, depth + 1)
