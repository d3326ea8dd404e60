from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from django_gomq.bus.data.codec import JsonCodec
from django_gomq.bus.errors import EncodeError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message

NAN = float("nan")
INFINITY = float("inf")


class Point(msgspec.Struct):
    x: float | None


@dataclass
class Place:
    name: str | None
    height: float


class Saved(Event, type="bus_tests.codec"):
    record_id: int
    share: float = 0.0
    at: datetime | None = None
    points: list[Point] = []  # noqa: RUF012 - msgspec copies it


class Model:
    """A foreign object."""


class Shade(enum.Enum):
    DARK = "dark"


def nest(depth: int, leaf: object) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (None, b"null"),
        ({"a": [1, 2.5, "ü", True, None]}, '{"a":[1,2.5,"ü",true,null]}'.encode()),
        (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
        (UUID(int=0), b'"00000000-0000-0000-0000-000000000000"'),
        (Shade.DARK, b'"dark"'),
        ({1: "x"}, b'{"1":"x"}'),
        ("null", b'"null"'),
        ({"null": [None, 1.0]}, b'{"null":[null,1.0]}'),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_plain_data_is_written_as_json(data: object, body: bytes) -> None:
    assert JsonCodec().encode("a.b", data) == body


@pytest.mark.parametrize("number", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda number: number,
        lambda number: [1, number],
        lambda number: (1, number),
        lambda number: {"a": {"b": [number]}},
        lambda number: {number, 1.0},
        lambda number: frozenset({number}),
        lambda number: [Point(None), Point(number)],
        lambda number: {"place": Place("hill", number)},
        lambda number: Saved(record_id=1, share=number),
        lambda number: Saved(record_id=1, points=[Point(number)]),
    ],
    ids=[
        *("bare", "list", "tuple", "dicts", "set", "frozenset"),
        *("struct", "dataclass", "event", "struct in event"),
    ],
)
def test_a_number_that_json_has_not_is_refused_with_advice(
    wrap: Any, number: float
) -> None:
    with pytest.raises(
        EncodeError, match="a.b.*: leave the field out, or pass None"
    ) as caught:
        JsonCodec().encode("a.b", wrap(number))

    assert caught.value.event == "a.b"


def test_a_number_that_json_has_not_is_refused_in_an_adapted_value() -> None:
    class Number(float):
        pass

    codec = JsonCodec(adapt=float)

    with pytest.raises(EncodeError, match="leave the field out"):
        codec.encode("a.b", [Number(NAN)])


def test_nones_in_all_places_are_no_trouble() -> None:
    data = [None, {"a": None}, {1.0}, (None,), Point(None), Place(None, 1.0)]

    body = JsonCodec().encode("a.b", data)

    assert body.count(b"null") == 5


def test_foreign_objects_are_refused_with_advice() -> None:
    with pytest.raises(EncodeError, match="Model has no JSON form: pass") as caught:
        JsonCodec().encode("a.b", {"model": Model()})

    assert caught.value.event == "a.b"


def test_foreign_objects_can_be_adapted() -> None:
    codec = JsonCodec(adapt=lambda value: type(value).__name__)

    assert codec.encode("a.b", [Model()]) == b'["Model"]'


@pytest.mark.parametrize("leaf", [None, 1])
def test_nesting_within_the_limit_passes(leaf: object) -> None:
    data = nest(200, leaf)

    body = JsonCodec().encode("a.b", data)

    assert Message[Any]("a.b", body).data == data
