"""What a value that JSON has not is written as, or what to pass in its place."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections import UserString
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MappingView,
    Sequence,
)
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from io import IOBase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

from django_gomq.bus.errors import EncodeError, class_name


def adapt_foreign(value: Any) -> Any:
    """Return what a value that msgspec refuses is in JSON.

    A subclass is its base, an object with the interface of a number, a mapping, a
    sequence or a set is that. Raises EncodeError, with advice, for all else.
    """
    # Nothing of the base classes' own comes here as a value: only as a key of a dict.
    if value is None or issubclass(type(value), _NO_KEYS):
        raise EncodeError(
            f"{class_name(value)} is no key of a JSON object: write keys as texts, or "
            "pass a list of pairs."
        )
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    if _is_boolean(value):
        return bool(value)
    raise EncodeError(_advise(value))


_NO_KEYS: Final = (bool, tuple, list, dict, set, frozenset)


def refuse_nan(value: float) -> float:
    """Return a float that JSON has; raises EncodeError for NaN and infinities."""
    if math.isfinite(value):
        return value
    raise EncodeError(f"{value!r} has no JSON form: leave the field out, or pass None.")


def _text_of(value: Any) -> str:
    # What a subclass holds, whatever its __str__ says; str() is for proxies.
    return str.__str__(value) if issubclass(type(value), str) else str(value)


def _library_class(value: Any) -> Any:
    # By the module, as frozen clocks put classes of theirs in the place of these.
    return next(
        ancestor
        for ancestor in value.__class__.__mro__
        if ancestor.__module__ == "datetime"
    )


def _moment_of(value: datetime) -> Any:
    return _library_class(value)(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )


def _day_of(value: date) -> Any:
    return _library_class(value)(value.year, value.month, value.day)


def _time_of(value: time) -> Any:
    return _library_class(value)(
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )


def _span_of(value: timedelta) -> Any:
    return _library_class(value).__pos__(value)


def _float_of(value: Any) -> float:
    # What a subclass holds, whatever its __float__ says.
    is_float = issubclass(type(value), float)
    return refuse_nan(float.__float__(value) if is_float else float(value))


def _refuse_fraction(value: Any) -> Any:
    raise EncodeError(
        f"{class_name(value)} has no JSON form: pass float(value), or a Decimal."
    )


def _dict_of(value: Mapping[Any, Any]) -> dict[Any, Any]:
    items = list(value.items())
    found = dict(items)
    if len(found) < len(items):
        raise EncodeError(
            f"{class_name(value)} has a key twice, of which JSON keeps one: pass a "
            "dict of lists."
        )
    return found


# The first that fits: a datetime is a date too, and a UserString a sequence.
_CONVERSIONS: Final[tuple[tuple[type[Any], Callable[[Any], Any]], ...]] = (
    (str, _text_of),
    (UserString, str),
    (numbers.Integral, operator.index),
    (numbers.Rational, _refuse_fraction),
    (numbers.Real, _float_of),
    (Decimal, Decimal),
    (datetime, _moment_of),
    (date, _day_of),
    (time, _time_of),
    (timedelta, _span_of),
    (bytes, bytes),
    (Mapping, _dict_of),
    (Sequence, list),
    (AbstractSet, list),
    (MappingView, list),
)


def _is_boolean(value: Any) -> bool:
    """Whether it is what numpy has for a bool, which is none and no number."""
    return _kind_of_array(value) == "b" and getattr(value, "shape", None) == ()


def _kind_of_array(value: Any) -> Any:
    """Return what numpy calls the kind of an array's or a scalar's values."""
    return getattr(getattr(value, "dtype", None), "kind", None)


def _advise(value: Any) -> str:
    return f"{class_name(value)} has no JSON form: {_advice_for(value)}"


def _advice_for(value: Any) -> str:
    for kind, advice in _ADVICE:
        if isinstance(value, kind):
            return advice
    if _kind_of_array(value) in _TIMES:
        return "pass datetimes, timedeltas or texts."
    for method in ("tolist", "model_dump"):
        if hasattr(value, method):
            return f"pass what its {method}() returns."
    if isinstance(value, Iterable):
        return "pass a list of what it yields."
    if callable(value):
        return "pass what it returns, or a name."
    return (
        "pass numbers, texts, lists, dicts, datetimes, UUIDs, Decimals or enums: what "
        "the handler needs of it."
    )


_TIMES: Final = ("m", "M")  # numpy's, in units of its own

_ADVICE: Final[tuple[tuple[Any, str], ...]] = (
    (os.PathLike, "pass str() of it."),
    ((IPv4Address, IPv6Address, IPv4Network, IPv6Network), "pass str() of it."),
    (Awaitable, "await it first."),
    (IOBase, "pass what it holds, or where it is stored."),
    (BaseException, "pass its class and its text."),
    (type, "it is a class: pass a name, or an instance."),
    (complex, "pass its parts, real and imag."),
)
