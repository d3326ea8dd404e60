from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_gomq.bus.errors import (
    ConfigurationError,
    DecodeError,
    MessageError,
    MessageTooLargeError,
)
from django_gomq.bus.message import Message, validate, validate_type

LIMIT = 1000


def test_two_messages_are_equal_only_if_they_are_one() -> None:
    one = Message("a.b", number="x", made=1.0)
    other = Message("a.b", number="x", made=1.0)

    assert one == one  # noqa: PLR0124 - the point
    assert one != other


def test_the_time_is_in_utc() -> None:
    message = Message("a.b", made=1.5)

    assert message.time == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "body", [b"{", b"", b"\xff", b"[" * 100_000], ids=["cut", "empty", "bytes", "deep"]
)
def test_a_body_that_is_not_json_is_a_decode_error(body: bytes) -> None:
    message = Message[Any]("a.b", body)

    with pytest.raises(DecodeError) as caught:
        _ = message.data
    assert (caught.value.code, caught.value.event) == ("decode", "a.b")


# ---------------------------------------------------------------------- validation


def test_a_plain_message_is_valid() -> None:
    validate(
        Message("a.b", key="7", headers={"x-id": "ü"}, priority=0, delay=1),
        max_body_bytes=LIMIT,
    )


def test_a_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    validate(Message("a.b", b"x" * LIMIT), max_body_bytes=LIMIT)

    with pytest.raises(MessageTooLargeError, match="emit an id") as caught:
        validate(Message("a.b", b"x" * (LIMIT + 1)), max_body_bytes=LIMIT)
    assert (caught.value.code, caught.value.event) == ("too_large", "a.b")


WRONG: dict[str, dict[str, Any]] = {
    "text body": {"body": "text"},
    "no body": {"body": None},
    "high priority": {"priority": 10},
    "low priority": {"priority": -1},
    "float priority": {"priority": 5.0},
    "text priority": {"priority": "5"},
    "bool priority": {"priority": True},
    "negative delay": {"delay": -1},
    "endless delay": {"delay": float("inf")},
    "nan delay": {"delay": float("nan")},
    "text delay": {"delay": "1"},
    "empty key": {"key": ""},
    "long key": {"key": "k" * 201},
    "number key": {"key": 7},
    "key that is no text": {"key": 7},
    "no headers": {"headers": None},
    "list headers": {"headers": ["a"]},
    "number header": {"headers": {"a": 1}},
    "header name of a number": {"headers": {1: "a"}},
    "header with a newline": {"headers": {"a": "b\r\nc: d"}},
    "header name with a space": {"headers": {"a b": "c"}},
    "many headers": {"headers": {f"h{number}": "" for number in range(33)}},
    "long headers": {"headers": {"h": "x" * 4096}},
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG)
def test_what_can_never_work_is_refused_at_the_call(fields: dict[str, Any]) -> None:
    with pytest.raises(MessageError) as caught:
        validate(Message("a.b", **fields), max_body_bytes=LIMIT)
    assert caught.value.event == "a.b"


@pytest.mark.parametrize(
    "name", ["a", "a.b", "health.record.saved", "a_1.b2", "x" * 200]
)
def test_a_dotted_lower_case_name_is_an_event_type(name: str) -> None:
    assert validate_type(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", ".a", "a..b", "A.b", "a-b", "a b", "a.b\n", "x" * 201, None, 7],
)
def test_anything_else_is_no_event_type(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not an event type"):
        validate_type(name)


@given(st.text(max_size=20))
def test_only_what_the_rule_says_is_an_event_type(name: str) -> None:
    try:
        validate_type(name)
    except ConfigurationError:
        is_type = False
    else:
        is_type = True
    segments = [re.fullmatch("[a-z0-9_]+", one, re.ASCII) for one in name.split(".")]
    assert is_type is all(segments)
