from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import pytest

from django_gomq.bus.consumer import OPTIONS, Consumer
from django_gomq.bus.delivery import DropReason
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import decode_plain
from django_gomq.bus.retry import NO_RETRY, Retry


def handle(message: object) -> None:
    pass


async def ahandle(message: object) -> None:
    pass


class Awaited:
    async def __call__(self, message: object) -> None:
        pass


def make(**options: Any) -> Consumer:
    given: dict[str, Any] = {"name": "c", "types": ("a.b",), "handler": handle}
    return Consumer(**given | options)


def test_the_options_are_those_of_the_documentation() -> None:
    assert {
        *("concurrency", "capacity", "overflow", "retry", "timeout", "max_age"),
        *("batch", "linger", "atomic", "ordered_by_key", "severity", "enabled"),
        *("start", "aliases", "idempotent"),
    } == OPTIONS


def test_a_consumer_needs_no_options() -> None:
    consumer = make()

    assert (consumer.concurrency, consumer.capacity) == (1, 1000)
    assert (consumer.overflow, consumer.retry) == ("drop_newest", NO_RETRY)
    assert (consumer.timeout, consumer.max_age, consumer.batch) == (None, None, None)
    assert consumer.severity == "warning"
    assert consumer.enabled


def test_a_consumer_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        make().capacity = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["c", "_", "shop.mail", "a-b:c.1_", "C", "x" * 200])
def test_a_name_is_one_word(name: str) -> None:
    assert make(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", ".c", "-c", "a b", "a/b", "ä", "c\n", "x" * 201, 7]
)
def test_a_name_that_is_no_word_is_refused(name: object) -> None:
    with pytest.raises(ConfigurationError, match="a name has letters"):
        make(name=name)


def test_a_consumer_without_types_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="names no event type"):
        make(types=())


def test_a_handler_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'print' cannot be called"):
        make(handler="print")


@pytest.mark.parametrize("option", ["concurrency", "capacity", "batch"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, float("nan")])
def test_a_number_of_messages_is_whole_and_at_least_one(
    option: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} is .*, not a whole number"):
        make(**{option: value})


@pytest.mark.parametrize("option", ["concurrency", "capacity"])
def test_a_limit_cannot_be_none(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} is None"):
        make(**{option: None})


@pytest.mark.parametrize("option", ["timeout", "max_age", "linger"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True])
def test_a_duration_is_in_seconds(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} is .*, not seconds"):
        make(**{"batch": 2, option: value})


@pytest.mark.parametrize("option", ["timeout", "max_age", "linger"])
def test_a_duration_may_be_a_timedelta(option: str) -> None:
    consumer = make(**{"batch": 2, option: timedelta(minutes=2)})

    assert getattr(consumer, option) == 120
    changed = consumer.with_options({option: timedelta(minutes=3)})
    assert getattr(changed, option) == 180


@pytest.mark.parametrize("option", ["timeout", "max_age"])
def test_no_time_at_all_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} is 0, not seconds"):
        make(**{option: 0})


def test_a_linger_cannot_be_none() -> None:
    with pytest.raises(ConfigurationError, match="linger is None"):
        make(batch=2, linger=None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"overflow": "drop"}, "overflow is 'drop', not one of"),
        ({"severity": "page"}, "severity is 'page', not one of"),
        ({"start": "yesterday"}, "start is 'yesterday', not one of"),
        ({"aliases": "old"}, "aliases is 'old', not a list of names"),
        ({"aliases": ["old", "no name"]}, r"aliases is \[.*\], not a list of names"),
        ({"aliases": [3]}, r"aliases is \[.*\], not a list of names"),
        ({"aliases": ["c"]}, "aliases has its own name"),
        ({"retry": 5}, r"retry is 5, not a Retry\(...\)"),
        ({"retry": None}, "retry is None"),
        ({"enabled": "no"}, "enabled is 'no', not True or False"),
        ({"ordered_by_key": 1}, "ordered_by_key is 1, not True or False"),
        ({"idempotent": 1}, "idempotent is 1, not True or False"),
        ({"idempotent": True, "atomic": True}, "idempotent has a transaction"),
        ({"idempotent": True, "handler": ahandle}, "idempotent needs a sync handler"),
        ({"atomic": 1}, "atomic is 1, not a bool or a database alias"),
        ({"linger": 0.5}, "linger needs batch"),
        ({"ordered_by_key": True, "batch": 2}, "ordered_by_key and batch exclude"),
        ({"atomic": True, "handler": ahandle}, "atomic needs a sync handler"),
        ({"batch": 2, "handler": ahandle}, "batch needs a sync handler"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_options_that_can_never_work_are_refused(options: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Consumer 'c': {text}") as caught:
        make(**options)

    assert caught.value.consumer == "c"


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": None, "max_age": None, "batch": None},
        {"concurrency": 1, "capacity": 1, "batch": 1, "linger": 0.1},
        {"timeout": 0.5, "max_age": 1},
        {"linger": 0},
        {"overflow": "backpressure", "retry": Retry()},
        {"atomic": "other", "ordered_by_key": True, "severity": "critical"},
        {"start": "earliest", "aliases": ("old", "older")},
        {"handler": ahandle, "concurrency": 50},
    ],
    ids=lambda value: str(value)[:30],
)
def test_options_at_their_limits_work(options: dict[str, Any]) -> None:
    consumer = make(**options)

    assert {name: getattr(consumer, name) for name in options} == options


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (handle, False),
        (ahandle, True),
        (Awaited(), True),
        (functools.partial(ahandle), True),
        (functools.partial(handle), False),
    ],
    ids=["function", "async function", "async object", "async partial", "partial"],
)
def test_a_consumer_knows_whether_its_handler_is_async(
    handler: Any, expected: bool
) -> None:
    assert make(handler=handler).is_async is expected


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        ({}, {DropReason.CHANNEL_FULL}),
        ({"overflow": "drop_oldest"}, {DropReason.CHANNEL_FULL, DropReason.EVICTED}),
        ({"overflow": "backpressure"}, set()),
        ({"overflow": "backpressure", "max_age": 1}, {DropReason.EXPIRED}),
    ],
)
def test_only_what_the_options_allow_can_drop_a_message(
    options: dict[str, Any], reasons: set[DropReason]
) -> None:
    found = make(**options).drop_reasons

    assert set(found) == reasons | {DropReason.SHUTDOWN}
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("event_type", "expected"),
    [("a.b", True), ("a.c", False), ("x.y.z", True), ("x", False)],
)
def test_a_consumer_subscribes_to_its_types_and_patterns(
    event_type: str, expected: bool
) -> None:
    assert make(types=("a.b", "x.*")).subscribes_to(event_type) is expected


@pytest.mark.parametrize(
    ("types", "expected"),
    [(("a.b", "x"), False), (("a.b", "x.*"), True), (("*",), True)],
)
def test_a_consumer_knows_whether_it_has_patterns(
    types: tuple[str, ...], expected: bool
) -> None:
    assert make(types=types).has_patterns is expected


def test_types_without_a_decoder_are_plain_json() -> None:
    assert make().decode("a.b") is decode_plain


def test_options_can_be_replaced() -> None:
    consumer = make(batch=5, capacity=7)

    changed = consumer.with_options({"capacity": 9})

    assert (changed.capacity, changed.batch) == (9, 5)
    assert consumer.capacity == 7


def test_replaced_options_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="capacity is 0"):
        make().with_options({"capacity": 0})


@pytest.mark.parametrize("option", ["size", "name", "types", "handler"])
def test_an_unknown_option_is_refused_with_those_that_exist(option: str) -> None:
    with pytest.raises(
        ConfigurationError,
        match=f"unknown option {option}; there are aliases, atomic, batch,",
    ) as caught:
        make().with_options({option: 1})

    assert caught.value.consumer == "c"
