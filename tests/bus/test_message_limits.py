from __future__ import annotations

from typing import Any

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


def check(**fields: Any) -> None:
    validate(Message("a.b", **fields), max_body_bytes=10)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"body": b"x" * 10},
        {"key": "k"},
        {"key": "ü" * 200},
        {"priority": 0},
        {"priority": 9},
        {"delay": 1},
        {"delay": 0.5},
        {"headers": {f"x{number}": "" for number in range(32)}},
        {"headers": {"Traceparent": "ä ö", "gomq.a:b_c-d": ""}},
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


@pytest.mark.parametrize("key", ["", "k" * 201, 7, b"k"])
def test_a_key_is_a_short_text(key: object) -> None:
    with pytest.raises(MessageError, match="text of 1 to 200"):
        check(key=key)


@pytest.mark.parametrize("key", ["a\nb", "a\x00", "\ud800", "a\u200b"])
def test_a_key_has_nothing_to_escape(key: str) -> None:
    with pytest.raises(MessageError, match="characters to escape"):
        check(key=key)


@pytest.mark.parametrize("priority", [-1, 10, 5.0, True, "5", None])
def test_a_priority_is_0_to_9(priority: object) -> None:
    with pytest.raises(MessageError, match="not 0 to 9"):
        check(priority=priority)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 10**400, "5", [1]])
def test_a_delay_is_in_seconds_from_now(delay: object) -> None:
    with pytest.raises(MessageError, match="not seconds from now"):
        check(delay=delay)


@pytest.mark.parametrize("headers", [None, [], [("x", "y")], "x"])
def test_headers_are_a_dict(headers: object) -> None:
    with pytest.raises(MessageError, match="must be a dict"):
        check(headers=headers)


@pytest.mark.parametrize("headers", [{"x": 1}, {1: "x"}, {"x": None}, {"x": b"y"}])
def test_headers_are_text_to_text(headers: object) -> None:
    with pytest.raises(MessageError, match="str to str"):
        check(headers=headers)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ä", "a=b", "x" * 101])
def test_a_header_name_is_plain(name: str) -> None:
    with pytest.raises(MessageError, match="characters that no header may have"):
        check(headers={name: "value"})


@pytest.mark.parametrize("value", ["a\r\nb", "\x00", "\ud800"])
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
        {"key": "\n"},
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


def test_what_is_said_of_a_huge_name_is_short() -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate_type("a" * 1_000_000)

    assert len(str(caught.value)) < 500
