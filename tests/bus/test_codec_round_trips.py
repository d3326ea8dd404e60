"""What goes through the codec comes back equal, for all that an event may hold."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.data.codec import JsonCodec, decode_as
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Leaf(msgspec.Struct):
    name: str
    colour: Colour | None


class Branch(msgspec.Struct):
    leaves: list[Leaf]
    branches: list[Branch]


class Everything(Event, type="bus_tests.everything"):
    number: int
    share: float
    text: str
    flag: bool
    raw: bytes
    id: UUID
    price: Decimal
    moment: datetime
    day: date
    hour: time
    span: timedelta
    colour: Colour
    levels: set[Level]
    pair: tuple[int, str]
    by_name: dict[str, list[int | None]]
    by_number: dict[int, str]
    tree: Branch
    maybe: Leaf | None = None


TEXTS = st.text(max_size=20)
ZONES = st.just(UTC) | st.builds(
    lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-720, 720)
)
LEAVES = st.builds(Leaf, TEXTS, st.none() | st.sampled_from(Colour))
BRANCHES = st.recursive(
    st.builds(Branch, st.lists(LEAVES, max_size=2), st.just([])),
    lambda inner: st.builds(
        Branch, st.lists(LEAVES, max_size=2), st.lists(inner, max_size=2)
    ),
    max_leaves=5,
)
EVENTS = st.builds(
    Everything,
    number=st.integers(-(2**63), 2**64 - 1),
    share=st.floats(allow_nan=False, allow_infinity=False),
    text=TEXTS,
    flag=st.booleans(),
    raw=st.binary(max_size=20),
    id=st.uuids(),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    moment=st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001 - the zone is drawn
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=ZONES,
    ),
    day=st.dates(),
    hour=st.times(),
    span=st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
    colour=st.sampled_from(Colour),
    levels=st.sets(st.sampled_from(Level)),
    pair=st.tuples(st.integers(-9, 9), TEXTS),
    by_name=st.dictionaries(
        TEXTS, st.lists(st.none() | st.integers(-9, 9), max_size=3), max_size=3
    ),
    by_number=st.dictionaries(st.integers(-9, 9), TEXTS, max_size=3),
    tree=BRANCHES,
    maybe=st.none() | LEAVES,
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(EVENTS)
@settings(deadline=None)
def test_an_event_comes_back_equal(event: Everything) -> None:
    body = JsonCodec().encode_event(event)

    assert decode_as(Everything)(Message("bus_tests.everything", body)) == event


@given(PLAIN)
@settings(deadline=None)
def test_plain_data_comes_back_equal(data: Any) -> None:
    body = JsonCodec().encode("a.b", data)

    assert Message[Any]("a.b", body).data == data
