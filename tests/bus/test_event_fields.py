"""Event classes whose fields cannot be read or written are told by class and field."""

from __future__ import annotations

import dataclasses
import numbers
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec
import pytest

from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.data.codec import JsonCodec, decode_as
from django_gomq.bus.declarations.fields import check_fields
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import Event, EventMeta

if TYPE_CHECKING:
    from datetime import datetime


class Model:
    """As Django's: a class with a ``_meta``."""

    _meta = "options"


class Text(str):
    __slots__ = ()


class Place(msgspec.Struct):
    found: datetime


def make_wrong() -> dict[str, EventMeta]:
    """Return classes that are gone after the test: system checks look at all."""

    class Hidden(Event, type="fields.hidden"):
        at: datetime

    class HiddenInside(Event, type="fields.hidden.inside"):
        number: int
        times: dict[str, list[datetime]]

    class Inherits(Hidden, type="fields.inherits"):
        note: str = ""

    class Quoted(Event, type="fields.quoted"):
        at: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037

    class Nested(Event, type="fields.nested"):
        place: Place

    class OfModel(Event, type="fields.model"):
        record: Model

    class OfModels(Event, type="fields.models"):
        records: list[Model | None]

    class OfText(Event, type="fields.text"):
        text: Text

    class OfCall(Event, type="fields.call"):
        call: Callable[[], None]

    class Ambiguous(Event, type="fields.ambiguous"):
        either: str | uuid.UUID

    class Broken(Event, type="fields.broken"):
        size: 1 / 0  # type: ignore[valid-type]

    kinds = (Hidden, HiddenInside, Inherits, Quoted, Nested, OfModel, OfModels, OfText)
    return {one.__name__: one for one in (*kinds, OfCall, Ambiguous, Broken)}


WRONG = [
    ("Hidden", "the type of field 'at' cannot be found: NameError: name 'datetime'"),
    ("Hidden", "and not under TYPE_CHECKING"),
    ("HiddenInside", "field 'times' cannot be found: NameError"),
    ("Inherits", "field 'at' cannot be found"),
    ("Quoted", "field 'at' cannot be found: NameError: name 'Nowhere'"),
    ("Nested", "field 'place': name 'datetime' is not defined"),
    ("OfModel", "field 'record': Model is a model: emit its key"),
    ("OfModels", "field 'records': Model is a model"),
    ("OfText", "field 'text': Text has no JSON form"),
    ("OfCall", "field 'call': Callable has no JSON form"),
    ("Ambiguous", "field 'either': Type unions may not contain more than"),
    ("Broken", "field 'size' cannot be found: ZeroDivisionError"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_field_that_cannot_be_is_told_by_class_and_field(
    name: str, text: str
) -> None:
    event_class = make_wrong()[name]

    with pytest.raises(ConfigurationError) as caught:
        check_fields(event_class)

    place = f"Event class {event_class.__qualname__} ({__name__}): "
    assert str(caught.value).startswith(place)
    assert text in str(caught.value)
    assert caught.value.event == event_class.__event_type__


def test_it_is_told_where_a_consumer_is_declared_and_where_it_is_emitted() -> None:
    hidden = make_wrong()["Hidden"]

    with pytest.raises(ConfigurationError, match="Event class .*Hidden"):
        make_consumer((hidden,), print, name="c", options={})
    with pytest.raises(ConfigurationError, match="Event class .*Hidden"):
        JsonCodec().check_of(hidden)
    with pytest.raises(ConfigurationError, match="Event class .*Hidden"):
        decode_as(hidden)


def test_a_class_that_refers_to_names_of_a_function_is_told() -> None:
    class Inner(msgspec.Struct):
        number: int

    class Local(Event, type="fields.local"):
        inner: Inner

    with pytest.raises(ConfigurationError, match="field 'inner' cannot be found"):
        check_fields(Local)


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Address:
    street: str


class Wide(Event, type="fields.wide"):
    default_currency: ClassVar[Model] = Model()
    anything: Any
    thing: object
    number: numbers.Number
    mapping: Mapping[str, int]
    tree: Tree
    point: Point
    address: Address
    choice: int | str | None = None
    pair: tuple[int, str] = (1, "a")


def test_all_that_json_can_carry_may_be_a_field() -> None:
    check_fields(Wide)

    body = (
        b'{"anything":1,"thing":"x","number":2,"mapping":{},"tree":{},"point":[1,2],'
        b'"address":{"street":"x"}}'
    )
    assert JsonCodec().check_of(Wide)(body).number == 2  # type: ignore[attr-defined]
