"""Consumers made of functions, methods, classes and objects, for types of all forms."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any

import pytest

from django_gomq.bus.consumer import Consumer, make_consumer
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message


class Saved(Event, type="bus_tests.consumer.saved"):
    record_id: int


class Untyped(Event):
    record_id: int


class Handling:
    def handle(self, message: Message[Any]) -> Any:
        return "handled", message.id

    def note(self, message: Message[Any]) -> Any:
        return "noted", message.id


class Calling:
    def __call__(self, message: Message[Any]) -> Any:
        return "called", message.id


class Needy(Handling):
    def __init__(self, needed: object) -> None:
        self.needed = needed


class Breaking(Handling):
    def __init__(self) -> None:
        raise LookupError


class Misled:
    handle = "not a method"


def function(message: Message[Any]) -> Any:
    return "function", message.id


def make(*types: Any, handler: Any = function, **options: Any) -> Consumer:
    return make_consumer(types, handler, name="c", options=options)


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        (function, "function"),
        (Handling, "handled"),
        (Handling(), "handled"),
        (Handling().note, "noted"),
        (Calling(), "called"),
        (Needy("it"), "handled"),
    ],
    ids=["function", "class", "object", "method", "callable", "object with needs"],
)
def test_a_handler_has_many_forms(handler: Any, answer: str) -> None:
    message: Message[Any] = Message("a.b")

    assert make("a.b", handler=handler).handler(message) == (answer, message.id)


@pytest.mark.parametrize("handler", ["print", None, object(), Misled()])
def test_what_cannot_handle_is_refused(handler: object) -> None:
    with pytest.raises(ConfigurationError, match="is no function and has no handle()"):
        make("a.b", handler=handler)


@pytest.mark.parametrize("handler", [Calling, Misled])
def test_a_class_without_a_handle_is_refused(handler: type) -> None:
    with pytest.raises(ConfigurationError, match="has no handle.self, message."):
        make("a.b", handler=handler)


def test_a_class_that_needs_arguments_is_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match="class Needy cannot be made without arguments: .*needed",
    ):
        make("a.b", handler=Needy)


def test_what_a_class_raises_while_it_is_made_is_not_hidden() -> None:
    with pytest.raises(LookupError):
        make("a.b", handler=Breaking)


def test_types_are_texts_patterns_and_event_classes() -> None:
    assert make("a.b", "x.*", Saved).types == ("a.b", "x.*", "bus_tests.consumer.saved")


def test_a_type_that_is_named_twice_is_subscribed_once() -> None:
    assert make("a.b", "x.y", "a.b").types == ("a.b", "x.y")


class Types(str, Enum):  # noqa: UP042 - projects have such
    PAID = "order.paid"


class NewTypes(StrEnum):
    PAID = "order.paid"


@pytest.mark.parametrize("given", [Types.PAID, NewTypes.PAID], ids=repr)
def test_a_member_of_an_enum_of_texts_is_its_text(given: str) -> None:
    (found,) = make(given).types

    assert (type(found), found) == (str, "order.paid")


def test_an_event_class_gets_typed_data() -> None:
    consumer = make(Saved)
    message: Message[Any] = Message("bus_tests.consumer.saved", b'{"record_id":7}')

    decode = consumer.decode(message.type)

    assert decode(message) == Saved(record_id=7)


def test_a_text_gets_plain_data_beside_an_event_class() -> None:
    consumer = make(Saved, "x.y")
    message: Message[Any] = Message("x.y", b'{"record_id":7}')

    decode = consumer.decode(message.type)

    assert decode(message) == {"record_id": 7}


def test_an_event_class_without_a_type_is_refused_with_advice() -> None:
    with pytest.raises(
        ConfigurationError, match=r'names no type: write class Untyped\(Event, type="'
    ) as caught:
        make(Untyped)

    assert caught.value.consumer == "c"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("a.*.b", "no event type and no pattern"),
        (7, "no event type and no pattern"),
        (b"a.b", "no event type and no pattern"),
        (int, "Consumer 'c': int is no event type and no Event class"),
        (["a.b", Saved], r"one after the other: @consumer\('a.b', Saved\)"),
        (("a.b", "x.y"), r"one after the other: @consumer\('a.b', 'x.y'\)"),
        (Saved(record_id=1), "name the class Saved itself, and no event of it"),
    ],
)
def test_what_is_no_type_is_refused(wrong: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        make("a.b", wrong)

    assert caught.value.consumer == "c"


def test_options_are_kept() -> None:
    assert make("a.b", capacity=5, enabled=False).capacity == 5


def test_an_unknown_option_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigurationError, match="unknown option size"):
        make("a.b", handler=Breaking, size=5)
