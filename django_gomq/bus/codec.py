"""Events to JSON bytes and back, checked both ways."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import inspect

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

    # msgspec writes NaN as null: only bodies with a null are worth a walk. To find() it
    # takes half the time of "in".

    def __init__(self, adapt: Adapt = no_adapt) -> None:
        self.encode_bare = msgspec.json.Encoder(enc_hook=adapt).encode
        """Encodes, says nothing of events in errors, and writes NaN as null."""

    def encode(self, event_type: str, data: object) -> bytes:
        """Return the data as JSON.

        Raises EncodeError, which names the event type, for what JSON cannot say:
        NaN, foreign objects, circles.
        """
        try:
            body = self.encode_bare(data)
        except EncodeError as error:
            error.event = event_type
            raise
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise EncodeError(
                f"{event_type}: {str(error) or type(error).__name__}", event=event_type
            ) from error
        if body.find(b"null") >= 0:
            _refuse_nan(event_type, data)
        return body

    def encode_event(self, event: Event) -> bytes:
        """Return a typed event as JSON, after decoding it again as a check.

        Raises EncodeError if a field does not have its declared type, and
        ConfigurationError if its class has one that JSON cannot carry.
        """
        event_class = type(event)
        event_type = event_class.__event_type__
        check = self.check_of(event_class)
        body = self.encode(event_type, event)
        try:
            check(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EncodeError(f"{event_type}: {error}", event=event_type) from None
        return body

    @staticmethod
    def check_of(event_class: EventMeta) -> Callable[[bytes], object]:
        """Return what raises for a body that does not fit this class.

        Raises ConfigurationError if it has a field that JSON cannot carry.
        """
        return _decoder(event_class).decode


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
            children = (
                getattr(value, field.name) for field in dataclasses.fields(value)
            )
        case _:
            yield value
            return
    for child in children:
        yield from _leaves(event_type, child, depth + 1)


# None of them reads null, so decoding again finds it.
_PLAIN = (
    inspect.BoolType,
    inspect.BytesType,
    inspect.DateType,
    inspect.DateTimeType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.FloatType,
    inspect.IntType,
    inspect.LiteralType,
    inspect.StrType,
    inspect.TimeDeltaType,
    inspect.TimeType,
    inspect.UUIDType,
)


def may_hide_nan(struct: msgspec.StructMeta) -> bool:
    """Return whether a NaN in such a struct could pass as None."""
    return _may_hide(inspect.type_info(struct), set())


def _may_hide(info: Any, seen: set[type]) -> bool:
    if isinstance(info, _PLAIN):
        return False
    if isinstance(info, inspect.StructType):
        if info.cls in seen:
            return False
        seen.add(info.cls)
        return any(_may_hide(field.type, seen) for field in info.fields)
    if isinstance(info, inspect.UnionType):
        return any(_may_hide(kind, seen) for kind in info.types)
    if isinstance(info, inspect.ListType):
        return _may_hide(info.item_type, seen)
    return True  # None, or what may hold it; fields are not checked before this
