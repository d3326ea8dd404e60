"""Events to JSON bytes and back, checked both ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from traceback import walk_tb
from typing import Any, Final, NoReturn

import msgspec
from msgspec import inspect

from django_gomq.bus.declarations.fields import decoder_of
from django_gomq.bus.errors import (
    DecodeError,
    EncodeError,
    describe_error,
)
from django_gomq.bus.event import Event, EventMeta
from django_gomq.bus.message import Message

from .foreign import adapt_foreign
from .walk import Walk

Decode = Callable[[Message[Any]], Any]
Adapt = Callable[[Any], Any]
"""Turns a foreign value into one that JSON has, or raises EncodeError with advice."""

OPEN_LIST: Final = ord("[")
_OF_MSGSPEC: Final = (
    msgspec.MsgspecError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
)
"""What it raises for values that it cannot write."""


class JsonCodec:
    """Encodes and decodes; thread-safe, never blocks."""

    # msgspec writes NaN as null, and what a subclass of list or dict keeps elsewhere as
    # empty: only bodies with a null or with something empty are worth a walk. To find()
    # it takes half the time of "in"; a single byte takes a tenth of that.

    def __init__(self, adapt: Adapt = adapt_foreign) -> None:
        self.encode_bare = msgspec.json.Encoder(enc_hook=adapt).encode
        """Encodes; says nothing of events in errors, and may lose something."""
        self._walk = Walk(self.encode_bare, adapt)
        self._adapt = adapt

    def encode(self, event_type: str, data: object) -> bytes:
        """Return the data as JSON.

        Raises EncodeError, which names the event type, the path to the value and what
        to do, for what JSON cannot say: NaN, foreign objects, circles.
        """
        try:
            body = self.encode_bare(data)
        except Exception as error:  # noqa: BLE001 - raised again
            self._raise_told(event_type, data, error)
        if (
            body.find(b"null") >= 0
            or (OPEN_LIST in body and body.find(b"[]") >= 0)
            or body.find(b"{}") >= 0
        ):
            return self.complete(event_type, data, body)
        return body

    def _raise_told(self, event_type: str, data: object, error: Exception) -> NoReturn:
        """Raise what is wrong with the data; an error that is not of them, as it is.

        A signal handler may raise at any moment: of a time limit, such as Celery's.
        """
        fault = self._walk.find_fault(data)
        if fault is None and not self._is_of_data(error):
            raise error
        path, advice = fault or ("", describe_error(error))
        raise _refuse(event_type, path, advice) from error

    def _is_of_data(self, error: Exception) -> bool:
        """Whether msgspec raised this, or what makes foreign values into others."""
        code = getattr(self._adapt, "__code__", None)
        frames = walk_tb(error.__traceback__)
        return isinstance(error, _OF_MSGSPEC) or any(
            frame.f_code is code for frame, _ in frames
        )

    def complete(self, event_type: str, data: object, body: bytes) -> bytes:
        """Return a body of encode_bare(), or another if that lacks something.

        To ask, only where it has a null, or something empty. Raises as ``encode``.
        """
        try:
            whole = self._whole(data, body)
        except Exception as error:  # noqa: BLE001 - raised again
            self._raise_told(event_type, data, error)
        if isinstance(whole, tuple):
            raise _refuse(event_type, *whole)
        return whole

    def _whole(self, data: object, body: bytes) -> bytes | tuple[str, str]:
        """Return the body with all that is in the data, or the fault of them."""
        if not self._walk.loses_something(data):
            return body
        fault = self._walk.find_fault(data)
        return fault or self.encode_bare(self._walk.rebuild(data))

    def encode_event(self, event: Event) -> bytes:
        """Return a typed event as JSON, after decoding it again as a check.

        Raises EncodeError if a field does not have its declared type, and
        ConfigurationError if its class has one that JSON cannot carry.
        """
        event_class = type(event)
        self.check_of(event_class)
        body = self.encode(event_class.__event_type__, event)
        self.check_body(event_class, body)
        return body

    def check_body(self, event_class: EventMeta, body: bytes) -> None:
        """Raise EncodeError if this body does not fit the class.

        Raises ConfigurationError if the class has a field that JSON cannot carry.
        """
        event_type = event_class.__event_type__
        check = self.check_of(event_class)
        try:
            check(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise EncodeError(
                f"{event_type}: {_without_value(error)}", event=event_type
            ) from None

    @staticmethod
    def check_of(event_class: EventMeta) -> Callable[[bytes], object]:
        """Return what raises for a body that does not fit this class.

        Raises ConfigurationError if it has a field that JSON cannot carry.
        """
        return decoder_of(event_class).decode


def _refuse(event_type: str, path: str, advice: str) -> EncodeError:
    where = f"{event_type}, at {path}" if path else event_type
    return EncodeError(f"{where}: {advice}", event=event_type)


def decode_as(event_class: EventMeta) -> Decode:
    """Return the function that decodes a message's body as this Event class.

    Its attribute ``event_class`` is the class, as a function cannot be pickled.
    """
    decoder = decoder_of(event_class)

    def decode(message: Message[Any]) -> Any:
        try:
            return decoder.decode(message.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise DecodeError(
                f"The body does not fit {event_class.__qualname__}: "
                f"{_without_value(error)}",
                event=message.type,
            ) from None

    decode.__dict__["event_class"] = event_class
    return decode


_VALUE = re.compile(r"(?s)(Invalid (?:enum )?value) .*?( - at `(?:[^`]|` in `)*`)?$")


def _without_value(error: Exception) -> str:
    """Return what msgspec found, without the value, which is the user's."""
    return _VALUE.sub(r"\1\2", str(error))


# None of them reads null, so decoding again finds it; and none has items.
_PLAIN: Final = (
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
    return _may_hide(inspect.type_info(struct), _PLAIN, (inspect.ListType,), set())


def may_hide_items(struct: msgspec.StructMeta) -> bool:
    """Return whether such a struct holds lists, dicts or anything."""
    return _may_hide(inspect.type_info(struct), (*_PLAIN, inspect.NoneType), (), set())


def _may_hide(info: Any, harmless: Any, looked_into: Any, seen: set[type]) -> bool:
    if isinstance(info, harmless):
        return False
    if isinstance(info, inspect.StructType):
        if info.cls in seen:
            return False
        seen.add(info.cls)
        within = [field.type for field in info.fields]
    elif isinstance(info, inspect.UnionType):
        within = [*info.types]
    elif isinstance(info, looked_into):
        within = [info.item_type]
    else:
        return True  # None, or what may hold it; fields are not checked before this
    return any(_may_hide(kind, harmless, looked_into, seen) for kind in within)
