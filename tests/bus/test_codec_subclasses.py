"""Subclasses travel as their base, and what has an interface as what it is."""

from __future__ import annotations

import array
import copy
import numbers
import types
from collections import (
    ChainMap,
    Counter,
    OrderedDict,
    UserDict,
    UserList,
    UserString,
    defaultdict,
    deque,
    namedtuple,
)
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from django_gomq.bus.data.codec import JsonCodec, decode_as, may_hide_items
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "what it says, not what it is"


class Whole(int):
    pass


class Broken(float):
    def __float__(self) -> float:
        return 9.0


class Price(Decimal):
    pass


class FakeClock(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Moment(datetime, metaclass=FakeClock):
    """What freezegun puts in the place of datetime, and pendulum beside it."""


class Day(date):
    pass


class Hour(time):
    pass


class Span(timedelta):
    @property
    def days(self) -> int:
        return 0  # as a calendar's months and days, of pendulum


class Raw(bytes):
    pass


class Id(UUID):
    pass


class Items(list[Any]):
    pass


class Table(dict[Any, Any]):
    pass


class ElsewhereDict(dict[Any, Any]):
    """A dict that keeps its items in another one."""

    def __init__(self, inner: dict[Any, Any]) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)

    def items(self) -> Any:
        return self.inner.items()


class ElsewhereList(UserList[Any], list[Any]):  # type: ignore[misc]
    """A list that keeps its items in another one, as Django's ErrorList does."""


class KeysElsewhere(dict[Any, Any]):
    """A dict that answers for keys alone."""

    def __iter__(self) -> Iterator[Any]:
        return iter("a")

    def __getitem__(self, key: Any) -> Any:
        return [1]


class PlacesElsewhere(list[Any]):
    """A list that answers for places alone."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: Any) -> Any:
        return [1, 2][place]


class Integer:
    """A number of numpy's: no int, and registered as one."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __hash__(self) -> int:
        return self.value


class Float32:
    """A number of numpy's: no float, and registered as a real one."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class Boolean:
    """What numpy has for a bool."""

    class dtype:  # noqa: N801 - the name is numpy's
        kind = "b"

    shape = ()

    def __bool__(self) -> bool:
        return True


class Proxy:
    """What stands for a text, as Django's and werkzeug's lazy objects do."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str

    def __str__(self) -> str:
        return "told"


numbers.Integral.register(Integer)
numbers.Real.register(Float32)
Pair = namedtuple("Pair", "one other")  # noqa: PYI024 - as people write it
MOMENT = (2026, 1, 2, 3, 4, 5, 6)

# What is passed, and the body.
VALUES: dict[str, tuple[Any, str]] = {
    "text": (Text("a"), '"a"'),
    "int": (Whole(5), "5"),
    "float": (Broken(1.5), "1.5"),
    "decimal": (Price("1.50"), '"1.50"'),
    "datetime": (Moment(*MOMENT), '"2026-01-02T03:04:05.000006"'),
    "aware datetime": (Moment(*MOMENT, tzinfo=UTC), '"2026-01-02T03:04:05.000006Z"'),
    "date": (Day(2026, 1, 2), '"2026-01-02"'),
    "time": (Hour(3, 4, 5, 6), '"03:04:05.000006"'),
    "timedelta": (Span(days=2, seconds=3), '"P2DT3S"'),
    "bytes": (Raw(b"abc"), '"YWJj"'),
    "uuid": (Id(int=0), '"00000000-0000-0000-0000-000000000000"'),
    "list": (Items([1]), "[1]"),
    "dict": (Table(a=1), '{"a":1}'),
    "named tuple": (Pair(1, 2), "[1,2]"),
    "ordered dict": (OrderedDict(a=1), '{"a":1}'),
    "defaultdict": (defaultdict(int, a=1), '{"a":1}'),
    "counter": (Counter("aa"), '{"a":2}'),
    "deque": (deque([1]), "[1]"),
    "user dict": (UserDict(a=1), '{"a":1}'),
    "user list": (UserList([1]), "[1]"),
    "user string": (UserString("a"), '"a"'),
    "chain": (ChainMap({"a": 1}), '{"a":1}'),
    "proxy of a dict": (types.MappingProxyType({"a": 1}), '{"a":1}'),
    "keys": ({"a": 1}.keys(), '["a"]'),
    "values": ({"a": 1}.values(), "[1]"),
    "items": ({"a": 1}.items(), '[["a",1]]'),
    "range": (range(3), "[0,1,2]"),
    "array": (array.array("i", [1]), "[1]"),
    "numpy's int": (Integer(5), "5"),
    "numpy's float": (Float32(0.5), "0.5"),
    "numpy's bool": (Boolean(), "true"),
    "lazy object": (Proxy(), '"told"'),
    "dict with its items elsewhere": (ElsewhereDict({"a": [1]}), '{"a":[1]}'),
    "list with its items elsewhere": (ElsewhereList([1]), "[1]"),
    "dict with its keys elsewhere": (KeysElsewhere(), '{"a":[1]}'),
    "list with its places elsewhere": (PlacesElsewhere(), "[1,2]"),
    "one within the other": (
        ElsewhereDict({"a": ElsewhereList([Text("b"), {}, ()])}),
        '{"a":["b",{},[]]}',
    ),
}


@pytest.mark.parametrize(("value", "body"), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize(
    ("wrap", "around"),
    [
        (lambda value: value, "%s"),
        (lambda value: [None, value], "[null,%s]"),
        (lambda value: {"a": {"b": value}, "c": []}, '{"a":{"b":%s},"c":[]}'),
        (lambda value: UserDict(a=value), '{"a":%s}'),
    ],
    ids=["alone", "in a list", "in a dict", "in a mapping"],
)
def test_it_travels_as_its_base(value: Any, body: str, wrap: Any, around: str) -> None:
    assert JsonCodec().encode("a.b", wrap(value)) == (around % body).encode()


class Typed(Event, type="bus_tests.subclasses"):
    text: str = ""
    number: int = 0
    share: float = 0.0
    price: Decimal = Decimal(0)
    at: datetime | None = None
    day: date | None = None
    span: timedelta | None = None
    raw: bytes = b""
    items: list[str] = []  # noqa: RUF012 - msgspec copies it
    errors: dict[str, list[str]] = {}  # noqa: RUF012 - msgspec copies it


@pytest.mark.parametrize(
    ("field", "value", "arrives"),
    [
        ("text", Text("a"), "a"),
        ("number", Whole(5), 5),
        ("number", Integer(5), 5),
        ("share", Broken(1.5), 1.5),
        ("share", Float32(0.5), 0.5),
        ("price", Price("1.50"), Decimal("1.50")),
        ("at", Moment(*MOMENT), datetime(*MOMENT)),  # noqa: DTZ001 - naive on purpose
        ("day", Day(2026, 1, 2), date(2026, 1, 2)),
        ("span", Span(days=2), timedelta(days=2)),
        ("raw", Raw(b"abc"), b"abc"),
        ("items", Items([Text("a")]), ["a"]),
        ("items", UserList(["a"]), ["a"]),
        ("items", ElsewhereList(["a"]), ["a"]),
        ("errors", ElsewhereDict({"a": ElsewhereList(["b"])}), {"a": ["b"]}),
        ("errors", UserDict(a=["b"]), {"a": ["b"]}),
    ],
)
def test_a_field_arrives_as_what_it_was_declared(
    field: str, value: Any, arrives: object
) -> None:
    body = JsonCodec().encode_event(Typed(**{field: value}))

    data = decode_as(Typed)(Message("bus_tests.subclasses", body))

    assert getattr(data, field) == arrives


@dataclass(frozen=True)
class Frozen:
    errors: Any


class Held(msgspec.Struct, frozen=True, tag=True):
    errors: Any
    missing: Any = msgspec.UNSET


@pytest.mark.parametrize("holder", [Frozen, Held])
def test_what_holds_them_stays_as_it_is(holder: Any) -> None:
    held = holder(ElsewhereList(["a"]))
    before = copy.copy(held)

    body = JsonCodec().encode("a.b", [held, None])

    assert msgspec.json.decode(body)[0]["errors"] == ["a"]
    assert held == before


def test_an_attrs_object_that_holds_them_is_written_whole() -> None:
    attrs = pytest.importorskip("attrs", reason="pip install attrs")
    holder = attrs.make_class("Holder", ["errors"])

    body = JsonCodec().encode("a.b", holder(ElsewhereList(["a"])))

    assert body == b'{"errors":["a"]}'


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (Text("a"), "a"),
        (Whole(5), "5"),
        (Integer(5), "5"),
        (1, "1"),
        (1.5, "1.5"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_keys_travel_as_texts(key: Any, text: str) -> None:
    body = JsonCodec().encode("a.b", {key: None})

    assert msgspec.json.decode(body) == {text: None}


def test_all_values_of_a_key_travel_where_a_dict_shows_one() -> None:
    class Several(dict[str, list[str]]):
        def __getitem__(self, key: str) -> Any:
            return super().__getitem__(key)[-1]

        def items(self) -> Any:
            return [(key, self[key]) for key in self]

    data = {"form": Several(a=["1", "2"]), "errors": ElsewhereList(["b"])}

    assert JsonCodec().encode("a.b", data) == (
        b'{"form":{"a":["1","2"]},"errors":["b"]}'
    )


class Flat(msgspec.Struct):
    number: int | None
    at: datetime


class Holding(msgspec.Struct):
    items: list[int]


@pytest.mark.parametrize(
    ("annotation", "hides"),
    [
        (int, False),
        (str | None, False),
        (Flat, False),
        (Flat | None, False),
        (Holding, True),
        (list[int], True),
        (dict[str, int] | None, True),
        (Any, True),
        (set[int], True),
    ],
)
def test_items_are_looked_for_where_a_class_can_hold_some(
    annotation: Any, hides: bool
) -> None:
    assert may_hide_items(msgspec.defstruct("Holder", [("x", annotation)])) is hides
