from __future__ import annotations

import enum
from datetime import timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.errors import (
    ConfigurationError,
    MessageError,
    MessageTooLargeError,
)
from django_gomq.bus.message import Message, validate, validate_type


class Texts(dict[str, str]):
    """A dict of somebody else's."""


class Whole(int):
    """An int of somebody else's."""


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 9
    HIGHER = 10


def check(**fields: Any) -> None:
    validate(Message("a.b", **fields), max_body_bytes=10)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"body": b"x" * 10},
        {"key": "k"},
        {"key": "ü" * 200},
        {"key": "Jos\u00e9\u00a0Garc\u00eda"},
        {"key": "Stra\u00dfe 5\u200b"},
        {"key": "\U0001f469\u200d\U0001f4bb"},
        {"key": "a\nb\x00\x1b"},
        {"key": "\ud800"},
        {"priority": 0},
        {"priority": 9},
        {"delay": 1},
        {"delay": 0.5},
        {"headers": {f"x{number}": "" for number in range(32)}},
        {"headers": {"Traceparent": "ä ö", "gomq.a:b_c-d": ""}},
        {
            "headers": {
                "x": "Jos\u00e9\u00a0Garc\u00eda \u200b \U0001f469\u200d\U0001f4bb"
            }
        },
        {"headers": {"x" * 96: "y" * 4000}},
        {"headers": Texts(x="y")},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_what_is_within_its_limits_passes(fields: dict[str, Any]) -> None:
    check(**fields)


@pytest.mark.parametrize("body", ["{}", bytearray(b"{}"), None, memoryview(b"{}")])
def test_a_body_is_bytes(body: object) -> None:
    with pytest.raises(MessageError, match="body must be bytes"):
        check(body=body)


def test_a_body_that_is_too_large_says_what_to_do_instead() -> None:
    with pytest.raises(MessageTooLargeError, match="emit an id") as caught:
        check(body=b"x" * 11)

    assert "11 bytes, the limit is 10" in str(caught.value)


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_key_is_short(key: str) -> None:
    with pytest.raises(MessageError, match=f"1 to 200 characters, and has {len(key)}"):
        check(key=key)


@pytest.mark.parametrize("key", [7, b"k", UUID(int=7), True, ["k"]], ids=repr)
def test_a_key_that_is_no_text_is_told_to_be_made_one(key: object) -> None:
    with pytest.raises(MessageError, match=r"text of 1 to 200 .* pass str\(\) of it"):
        check(key=key)


@pytest.mark.parametrize("priority", [Level.LOW, Level.HIGH, Whole(7)], ids=repr)
def test_a_priority_may_be_a_member_of_an_enum(priority: int) -> None:
    message = Message("a.b", priority=priority)

    validate(message, max_body_bytes=10)

    assert (message.priority, type(message.priority)) == (int(priority), int)


@pytest.mark.parametrize(
    "priority", [-1, 10, 5.0, True, "5", None, Level.HIGHER], ids=repr
)
def test_a_priority_is_0_to_9(priority: object) -> None:
    with pytest.raises(MessageError, match="not 0 to 9"):
        check(priority=priority)


@pytest.mark.parametrize(
    "delay",
    [
        *(-1, -0.5, float("nan"), float("inf"), 10**400, "5", [1], None, True),
        timedelta(-1),
    ],
    ids=lambda delay: repr(delay)[:20],
)
def test_a_delay_is_in_seconds_from_now(delay: object) -> None:
    with pytest.raises(MessageError, match="not a number of seconds from 0, or"):
        check(delay=delay)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (timedelta(minutes=2), 120.0),
        (timedelta(0), 0.0),
        (1, 1.0),
        (Fraction(1, 2), 0.5),
    ],
    ids=str,
)
def test_a_delay_may_be_a_timedelta(delay: Any, seconds: float) -> None:
    message = Message("a.b", delay=delay)

    validate(message, max_body_bytes=10)

    assert (message.delay, type(message.delay)) == (seconds, float)


@pytest.mark.parametrize("headers", [None, [], [("x", "y")], "x"])
def test_headers_are_a_dict(headers: object) -> None:
    with pytest.raises(MessageError, match="must be a dict"):
        check(headers=headers)


@pytest.mark.parametrize("headers", [{"x": 1}, {1: "x"}, {"x": None}, {"x": b"y"}])
def test_headers_are_text_to_text(headers: object) -> None:
    with pytest.raises(MessageError, match="headers are str to str: pass str"):
        check(headers=headers)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ä", "a=b", "x" * 101])
def test_a_header_name_is_plain(name: str) -> None:
    with pytest.raises(MessageError, match="characters that no header may have"):
        check(headers={name: "value"})


@pytest.mark.parametrize(
    "value", ["a\r\nb", "\x00", "\ud800", "\x7f", "a\x85b", "a\u2028b", "\x1b"]
)
def test_a_header_value_has_one_line(value: str) -> None:
    with pytest.raises(MessageError, match="characters that no header may have"):
        check(headers={"x": value})


def test_headers_are_few() -> None:
    with pytest.raises(MessageTooLargeError, match="33 headers, the limit is 32"):
        check(headers={f"x{number}": "" for number in range(33)})


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "y" * 4096},
        {"x" * 97: "y" * 4000},
        {"x": "ü" * 2048},
        {"x": "y" * 2048, "z": "y" * 2048},
    ],
    ids=["value", "name", "bytes, not characters", "all together"],
)
def test_headers_are_small_together(headers: dict[str, str]) -> None:
    with pytest.raises(MessageTooLargeError, match="the limit is 4096"):
        check(headers=headers)


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "x"},
        {"body": b"x" * 11},
        {"key": ""},
        {"key": 7},
        {"priority": 10},
        {"delay": -1},
        {"headers": []},
        {"headers": {"x": 1}},
        {"headers": {" ": "x"}},
        {"headers": {"x": "y" * 5000}},
        {"headers": dict.fromkeys(map(str, range(33)), "")},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_what_is_wrong_with_a_message_names_its_type(fields: dict[str, Any]) -> None:
    with pytest.raises(MessageError) as caught:
        check(**fields)

    assert caught.value.event == "a.b"
    assert str(caught.value).startswith("a.b: ")


@given(st.from_regex(r"[a-z0-9_]{1,9}(\.[a-z0-9_]{1,9}){0,9}", fullmatch=True))
@settings(deadline=None)
def test_lower_case_segments_with_dots_are_an_event_type(name: str) -> None:
    assert validate_type(name) == name


def test_an_event_type_may_have_200_characters() -> None:
    assert validate_type("a" * 200) == "a" * 200


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "Health",
            "a-b",
            "a b",
            "a.b\n",
            "ä",
            "a.*",
            "*",
        ),
        *("a" * 201, None, 7, b"a.b", ["a"]),
    ],
)
def test_nothing_else_is_an_event_type(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not an event type: write"):
        validate_type(name)


@pytest.mark.parametrize("event", [{"card": "SECRET"}, ("a.b", "SECRET"), b"SECRET"])
def test_what_is_no_text_is_told_by_its_class(event: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not an event type") as caught:
        validate_type(event)

    assert f"of the class {type(event).__name__}" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in repr(Message(event))


def test_what_is_said_of_a_huge_name_is_short() -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate_type("a" * 1_000_000)

    assert len(str(caught.value)) < 500
