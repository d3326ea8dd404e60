"""The fields of Event classes: whether JSON can carry the types that they name."""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Final

import msgspec
from msgspec import inspect

from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.bus.event import EventMeta

# A clock that a test has stopped puts classes of its own in the place of these two,
# which msgspec then takes for foreign: a tuple keeps the library's own.
_MOMENTS: Final = (datetime, date)
_NATIVE: Final = (str, int, float, bool, list, dict, type(None), *_MOMENTS)
"""What a field is read as."""


@functools.cache
def decoder_of(event_class: EventMeta) -> msgspec.json.Decoder[Any]:
    """Return what reads a body as this class, as ``check_fields`` allows."""
    check_fields(event_class)
    return _make_decoder(event_class)


def _make_decoder(annotation: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(annotation, dec_hook=_read_moment)


def _read_moment(kind: Any, value: Any) -> Any:
    """Return what is read for a class that msgspec does not know."""
    # Annotations that are texts are looked up late: under a stopped clock they name its
    # classes, and stay so.
    for library_class in _MOMENTS:
        if isinstance(kind, type) and issubclass(kind, library_class):
            return msgspec.convert(value, library_class)
    return value


def check_fields(event_class: EventMeta) -> None:
    """Raise ConfigurationError, which names class and field, for a wrong annotation.

    That is one that cannot be found when the program runs, or that is no JSON.
    """
    try:
        _check(event_class)
    except Exception as error:
        # Annotations are expressions: what they raise may be anything.
        raise ConfigurationError(
            f"Event class {event_class.__qualname__} ({event_class.__module__}): "
            f"{_explain(event_class, error)}",
            event=event_class.__event_type__ or None,
        ) from error


def _check(annotation: Any) -> None:
    for foreign in _foreign_in(inspect.type_info(annotation), set()):
        name = getattr(foreign, "__qualname__", str(foreign))
        if hasattr(foreign, "_meta"):  # of Django's models
            raise TypeError(f"{name} is a model: emit its key, a number or a text")
        raise TypeError(f"{name} has no JSON form")
    _make_decoder(annotation)


def _foreign_in(info: object, seen: set[int]) -> Iterator[type]:
    """Yield the classes in this description that nothing in JSON is read as."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, inspect.CustomType):
        kind = typing.get_origin(info.cls) or info.cls
        if not any(issubclass(native, kind) for native in _NATIVE):
            yield info.cls
    elif isinstance(info, inspect.Type | inspect.Field):
        for name in info.__struct_fields__:
            yield from _foreign_in(getattr(info, name), seen)
    elif isinstance(info, tuple):
        for item in info:
            yield from _foreign_in(item, seen)


def _explain(event_class: EventMeta, error: Exception) -> str:
    """Say which field it is, and what to write there."""
    problems = (
        _problem_with(owner, name, annotation)
        for owner in reversed(event_class.__mro__)
        for name, annotation in vars(owner).get("__annotations__", {}).items()
        if name in event_class.__struct_fields__
    )
    return next(filter(None, problems), describe_error(error))


def _problem_with(owner: type, name: str, annotation: Any) -> str | None:
    asked = types.SimpleNamespace(__annotations__={name: annotation})
    scope = vars(sys.modules.get(owner.__module__, types))
    try:
        hints = typing.get_type_hints(asked, scope, dict(vars(owner)))
    except Exception as error:  # noqa: BLE001 - an annotation is any expression
        return (
            f"the type of field {name!r} cannot be found: {describe_error(error)}. "
            "Import it where the program runs too, and not under TYPE_CHECKING: fields "
            "are checked by it."
        )
    try:
        _check(hints[name])
    except Exception as error:  # noqa: BLE001 - so is its value any object
        return f"field {name!r}: {error}."
    return None
