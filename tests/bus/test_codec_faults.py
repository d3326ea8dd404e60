"""What JSON cannot carry is refused with its event type, its path and a way out."""

from __future__ import annotations

import dataclasses
import enum
import io
import pathlib
import re
from collections import UserDict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address
from typing import Any, NamedTuple

import msgspec
import pytest

from django_gomq.bus.data.codec import JsonCodec, decode_as
from django_gomq.bus.errors import DecodeError, EncodeError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message
from tests.bus.interrupting import comes_out_at

NAN = float("nan")


class Line(msgspec.Struct):
    price: Any


@dataclasses.dataclass(frozen=True)
class Place:
    height: Any


class Odd(enum.Enum):
    THING = object()


class Paid(Event, type="bus_tests.paid"):
    lines: list[Line] = []  # noqa: RUF012 - msgspec copies it
    shade: Any = None


class Model:
    """A foreign object."""


class Unreadable:
    """A foreign object of which nothing can be asked."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


class Pairs(UserDict[str, int]):
    """A mapping that has a key more than once."""

    def items(self) -> Any:
        return [("a", 1), ("a", 2)]


class Array:
    """An array, as numpy and pandas have them."""

    def tolist(self) -> list[int]:
        return [1]


class Moment:
    """A moment or a span, as numpy has them, in units of its own."""

    class dtype:  # noqa: N801 - the name is numpy's
        kind = "M"

    def tolist(self) -> int:
        return 1


class Pair(NamedTuple):
    one: int
    other: int


class Endless:
    def __iter__(self) -> Iterator[int]:
        return count()


class Promised:
    """What an async function returns before it is awaited."""

    def __await__(self) -> Iterator[None]:
        yield None


class Schema:
    """A model of pydantic."""

    def model_dump(self) -> dict[str, int]:
        return {}


def refusal(data: object) -> str:
    with pytest.raises(EncodeError) as caught:
        JsonCodec().encode("shop.paid", data)
    assert caught.value.event == "shop.paid"
    return str(caught.value)


def count() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "fault", [NAN, Model(), "\ud800"], ids=["nan", "object", "text"]
)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda fault: [0, fault], "[1]"),
        (lambda fault: (fault,), "[0]"),
        (lambda fault: {"a": fault}, "a"),
        (lambda fault: {"a": {"b": [fault]}}, "a.b[0]"),
        (lambda fault: {"lines": [1, {"price": fault}]}, "lines[1].price"),
        (lambda fault: {"a b": fault}, "['a b']"),
        (lambda fault: {7: fault}, "['7']"),
        (lambda fault: {"a": UserDict(b=fault)}, "a.b"),
        (lambda fault: [Line(0), Line(fault)], "[1].price"),
        (lambda fault: {"place": Place(fault)}, "place.height"),
        (lambda fault: Paid(lines=[Line(fault)]), "lines[0].price"),
        (lambda fault: {"k" * 500: fault}, f"['{'k' * 39}..."),
    ],
)
def test_a_value_is_named_by_the_path_to_it(
    wrap: Any, path: str, fault: object
) -> None:
    assert refusal(wrap(fault)).startswith(f"shop.paid, at {path}")


def test_a_value_that_is_all_of_the_data_has_no_path() -> None:
    assert refusal(NAN) == (
        "shop.paid: nan has no JSON form: leave the field out, or pass None."
    )


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Model(), "Model has no JSON form: pass numbers, texts, lists, dicts"),
        (pathlib.Path("/srv"), "Path has no JSON form: pass str() of it"),
        (ip_address("::1"), "IPv6Address has no JSON form: pass str() of it"),
        (Fraction(1, 3), "Fraction has no JSON form: pass float(value)"),
        (1j, "complex has no JSON form: pass its parts"),
        (count(), "generator has no JSON form: pass a list of what it yields"),
        (Promised(), "Promised has no JSON form: await it first"),
        (ValueError("why"), "ValueError has no JSON form: pass its class and its text"),
        (Model, "it is a class"),
        (len, "pass what it returns"),
        (Array(), "pass what its tolist() returns"),
        (Moment(), "pass datetimes, timedeltas or texts"),
        (Schema(), "pass what its model_dump() returns"),
        (Pairs(), "Pairs has a key twice, of which JSON keeps one"),
        (Odd.THING, "object has no JSON form"),
        (Unreadable(), "it cannot be written: LookupError"),
        ("\ud800", "half of a surrogate pair"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        (10**5000, "Exceeds the limit (4300 digits)"),
        ({None: 1}, "NoneType is no key of a JSON object: write keys as texts"),
        ({True: 1}, "bool is no key of a JSON object"),
        ({(1, 2): 3}, "tuple is no key of a JSON object"),
        ({Pair(1, 2): 3}, "Pair is no key of a JSON object"),
        (Endless(), "Endless has no JSON form: pass a list of what it yields"),
        (io.BytesIO(), "BytesIO has no JSON form: pass what it holds"),
        ({frozenset(): 3}, "frozenset is no key of a JSON object"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_json_has_not_is_refused_with_a_way_out(
    value: object, advice: str
) -> None:
    assert advice in refusal({"lines": [value]})
    assert "at lines[0]" in refusal({"lines": [value]})


def test_what_holds_itself_is_refused_in_a_line() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = [circle]

    text = refusal(circle)

    assert "shop.paid, at a[0].a[0]" in text
    assert "holds itself" in text
    assert len(text) < 200


def test_what_is_nested_without_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert "nested too deep" in refusal(deep)


def test_a_value_that_changes_while_it_is_looked_for_is_told_all_the_same() -> None:
    class Once(UserDict[str, int]):
        asked = False

        def items(self) -> Any:
            if not self.asked:
                self.asked = True
                raise LookupError("first")
            return {}.items()

    assert refusal(Once()) == "shop.paid: LookupError: first"


def test_a_dict_that_cannot_be_read_is_told() -> None:
    class Closed(dict[str, int]):
        def __iter__(self) -> Iterator[str]:
            raise LookupError("closed")

    assert refusal({"a": Closed()}) == (
        "shop.paid, at a: it cannot be written: LookupError: closed"
    )


def test_a_nan_in_a_decimal_is_the_text_of_it() -> None:
    assert JsonCodec().encode("a.b", [Decimal("NaN")]) == b'["NaN"]'


class Colour(enum.Enum):
    RED = "red"


class Painted(Event, type="bus_tests.painted"):
    colour: Colour = Colour.RED
    by_colour: dict[Colour, int] = {}  # noqa: RUF012 - msgspec copies it


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"colour":"SECRET"}', "at `$.colour`"),
        (b'{"colour":"SEC - at RET\\n"}', "at `$.colour`"),
        (b'{"by_colour":{"SECRET":1}}', "at `key` in `$.by_colour`"),
    ],
)
def test_a_value_of_the_body_is_in_no_error(body: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_as(Painted)(Message("bus_tests.painted", body))

    assert "RET" not in str(caught.value)
    assert re.search(f"Invalid enum value - {re.escape(path)}", str(caught.value))


def test_a_value_of_a_field_is_in_no_error() -> None:
    wrong: Any = "SECRET"

    with pytest.raises(
        EncodeError, match="Invalid enum value - at `.*colour`"
    ) as caught:
        JsonCodec().encode_event(Painted(colour=wrong))

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("data", [{"a": 1}, {"a": None}, {"a": "null", "b": [None]}])
def test_what_a_signal_handler_raises_meanwhile_is_no_fault_of_the_data(
    data: dict[str, Any],
) -> None:
    codec = JsonCodec()

    steps = [
        comes_out_at(step, lambda: codec.encode("a.b", data)) for step in range(99)
    ]

    assert False not in steps
    assert steps[-1] is None
