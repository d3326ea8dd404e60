"""Handlers that can never be called with a message are told when they are declared."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Annotated, Any, Union
from unittest.mock import AsyncMock, Mock

import pytest

from django_gomq.bus.consumer import Consumer, make_consumer
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message

if TYPE_CHECKING:
    from datetime import datetime


class Saved(Event, type="declared.saved"):
    number: int


class SavedTwice(Saved, type="declared.saved.twice"):
    pass


class Moved(Event, type="declared.moved"):
    pass


def make(*types: Any, handler: Any, **options: Any) -> Consumer:
    return make_consumer(types or ("a.b",), handler, name="c", options=options)


def refusal(*types: Any, handler: Any, **options: Any) -> str:
    with pytest.raises(ConfigurationError, match="Consumer 'c': ") as caught:
        make(*types, handler=handler, **options)
    assert caught.value.consumer == "c"
    return str(caught.value)


# ------------------------------------------------------------------ what yields


def yields(message: object) -> Iterator[None]:
    yield


async def ayields(message: object) -> AsyncIterator[None]:
    yield


class Yields:
    def handle(self, message: object) -> Iterator[None]:
        yield

    @staticmethod
    def note(message: object) -> Iterator[None]:
        yield


class Calls:
    def __call__(self, message: object) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "handler",
    [
        yields,
        ayields,
        functools.partial(yields),
        functools.partial(functools.partial(ayields)),
        functools.partial(Yields().handle),
        Yields,
        Yields(),
        Yields().handle,
        Yields.note,
        Calls(),
        pytest.param(staticmethod(yields), id="static method"),
        pytest.param(contextlib.contextmanager(yields), id="context manager"),
        pytest.param(contextlib.asynccontextmanager(ayields), id="async one"),
    ],
)
def test_a_handler_with_a_yield_is_refused(handler: Any) -> None:
    assert "has a yield, so that a call of it runs nothing" in refusal(handler=handler)


# -------------------------------------------------------------- what takes no message


def takes_none() -> None: ...


def receives(sender: object, instance: object, **kwargs: object) -> None: ...


def takes_two(message: object, other: object) -> None: ...


def takes_a_name(*, message: object) -> None: ...


class Handlers:
    def on_event(self, message: object) -> None: ...

    def on_any(self, message: object = None) -> None: ...

    @classmethod
    def on_class(cls, message: object) -> None: ...

    @staticmethod
    def on_static(message: object) -> None: ...

    def in_namespace(message: object) -> None: ...  # noqa: N805


class HandlesNothing:
    def handle(self) -> None: ...


class HandlesTwo:
    def handle(self, sender: object, instance: object) -> None: ...


class CallsNothing:
    def __call__(self) -> None: ...


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def adding(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, "added", **kwargs)

    return call


def adapting(function: Callable[[], Any]) -> Callable[[object], Any]:
    @functools.wraps(function)
    def call(message: object) -> Any:
        return function()

    return call


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (takes_none, r"takes_none() takes no message: write def takes_none(message)"),
        (receives, "and cannot be (missing a required argument: 'instance'): write"),
        (receives, "write def receives(message); emit_on_signal() makes events of sig"),
        (takes_two, "cannot be (missing a required argument: 'other')"),
        (takes_a_name, "cannot be (too many positional arguments)"),
        (lambda: None, "takes no message"),
        (Handlers.on_event, "on_event(self, ...) is a method, and there is no object"),
        (Handlers.on_event, "consumer(...)(an_object.on_event)"),
        (Handlers.on_any, "is a method, and there is no object to call it on"),
        (passing_on(Handlers.on_event), "is a method, and there is no object"),
        (passing_on(takes_none), "takes no message"),
        (functools.partial(takes_two), "missing a required argument: 'other'"),
        (HandlesNothing, "handle() takes no message: write def handle(self, message)"),
        (HandlesTwo, "write def handle(self, message)"),
        (HandlesTwo(), "missing a required argument: 'instance'"),
        (CallsNothing(), "write def __call__(self, message)"),
    ],
)
def test_a_handler_that_cannot_be_called_with_one_message_is_refused(
    handler: Any, text: str
) -> None:
    assert text in refusal(handler=handler)


def takes_options(message: object, /, *rest: object, last: int = 0) -> None: ...


def takes_all(*args: object, **kwargs: object) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        takes_options,
        takes_all,
        functools.partial(takes_two, other=1),
        pytest.param(passing_on(takes_options), id="wrapped"),
        adding(takes_two),
        adapting(takes_none),
        Handlers().on_event,
        Handlers.on_class,
        Handlers.on_static,
        Handlers.in_namespace,
        print,
    ],
)
def test_what_can_be_called_with_one_message_is_a_handler(handler: Any) -> None:
    assert callable(make(handler=handler).handler)


def test_a_handler_whose_signature_cannot_be_read_is_taken() -> None:
    assert make(handler=max).handler is max


def test_a_mock_is_a_handler() -> None:
    mocked = Mock(spec=takes_options)

    assert [make(handler=one).is_async for one in (Mock(), mocked)] == [False, False]
    assert make(handler=AsyncMock()).is_async


# ---------------------------------------------------------------------- annotations


def takes_one(message: Message[Any]) -> None: ...


def takes_bare(message: Message) -> None: ...


def takes_list(messages: list[Message[Any]]) -> None: ...


def takes_sequence(messages: Sequence[Message[Saved]]) -> None: ...


def takes_iterable(messages: Iterable[Message]) -> None: ...


def takes_tuple(messages: tuple[Message[Any], ...]) -> None: ...


def takes_quoted(messages: "list[Message[Any]]") -> None: ...  # noqa: UP037


def takes_hidden(message: Message[datetime]) -> None: ...


def returns_hidden(messages: list[Message[Any]]) -> datetime | None: ...


def takes_either(message: Message[Any] | list[Message[Any]]) -> None: ...


def takes_object(message: object) -> None: ...


def takes_mapping(message: Mapping[str, Any]) -> None: ...


def takes_event(event: Saved) -> None: ...


class HandlesList:
    def handle(self, messages: list[Message[Any]]) -> None: ...


LISTS = [
    takes_list,
    takes_sequence,
    takes_iterable,
    takes_tuple,
    takes_quoted,
    returns_hidden,
    HandlesList,
    functools.partial(takes_list),
    passing_on(takes_list),
]


@pytest.mark.parametrize("handler", LISTS, ids=range(len(LISTS)))
def test_a_list_without_batch_is_refused(handler: Any) -> None:
    assert "is annotated with a list, and gets one message" in refusal(
        Saved, handler=handler
    )


@pytest.mark.parametrize("handler", LISTS, ids=range(len(LISTS)))
def test_a_list_with_batch_is_a_handler(handler: Any) -> None:
    assert make(Saved, handler=handler, batch=5).batch == 5


@pytest.mark.parametrize("handler", [takes_one, takes_bare])
def test_one_message_with_batch_is_refused(handler: Any) -> None:
    text = refusal(handler=handler, batch=5)

    assert "batch=5 hands it a list, and it is annotated with one message" in text


def test_a_batch_of_the_settings_is_checked_as_well() -> None:
    consumer = make(handler=takes_one)

    with pytest.raises(ConfigurationError, match="batch=5 hands it a list"):
        consumer.with_options({"batch": 5})


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize(
    "handler",
    [takes_hidden, takes_either, takes_object, takes_mapping, takes_all, print],
)
def test_an_annotation_that_says_nothing_forbids_nothing(
    handler: Any, batch: int | None
) -> None:
    assert make(handler=handler, batch=batch).batch == batch


def test_the_event_in_the_place_of_its_message_is_told() -> None:
    text = refusal(Saved, handler=takes_event)

    assert "annotated with Saved, and gets a message, whose data is the Saved" in text


def of_saved(message: Message[Saved]) -> None: ...


def of_many_saved(messages: list[Message[Saved]]) -> None: ...


def of_either(message: Message[Saved | Moved]) -> None: ...


def of_old_union(message: "Message[Union[Saved, Moved]]") -> None: ...  # noqa: UP007, UP037


def of_any_event(message: Message[Event]) -> None: ...


def of_dict(message: Message[dict[str, Any]]) -> None: ...


def of_saved_or_dict(message: Message[Saved | dict[str, Any]]) -> None: ...


def of_annotated(message: Annotated[Message[Saved], "why"]) -> None: ...


async def of_saved_later(message: Message[Saved]) -> datetime | None: ...


@pytest.mark.parametrize(
    ("types", "handler", "options"),
    [
        ((Saved,), of_saved, {}),
        ((Saved,), of_annotated, {}),
        ((Saved,), of_saved_later, {}),
        ((Saved, SavedTwice), of_saved, {}),
        ((Saved,), of_many_saved, {"batch": 5}),
        ((Saved, Moved), of_either, {}),
        ((Saved, Moved), of_old_union, {}),
        ((Saved, Moved), of_any_event, {}),
        ((Saved, "x.*"), of_saved_or_dict, {}),
        (("x.*",), of_dict, {}),
        ((Saved, "x.*"), takes_one, {}),
        ((Saved, "x.*"), takes_bare, {}),
    ],
)
def test_a_handler_may_say_which_events_it_expects(
    types: tuple[Any, ...], handler: Any, options: dict[str, Any]
) -> None:
    assert make(*types, handler=handler, **options).name == "c"


@pytest.mark.parametrize(
    ("types", "handler", "options", "text"),
    [
        ((Moved,), of_saved, {}, "annotated Message[Saved], and gets Message[Moved]"),
        ((Saved, Moved), of_saved, {}, "and gets Message[Moved]"),
        ((Moved,), of_annotated, {}, "and gets Message[Moved]"),
        ((Moved,), of_many_saved, {"batch": 5}, "and gets Message[Moved]"),
        ((SavedTwice, "x.*"), of_either, {}, "annotated Message[Saved | Moved]: name"),
        (("declared.saved",), of_saved, {}, "a text, which gives plain JSON data"),
        (("declared.saved",), of_saved, {}, "name the class, @consumer(Saved)"),
        (("a.*",), of_any_event, {}, "name the class, @consumer(Event)"),
    ],
)
def test_a_handler_that_expects_other_events_is_refused(
    types: tuple[Any, ...], handler: Any, options: dict[str, Any], text: str
) -> None:
    assert text in refusal(*types, handler=handler, **options)
