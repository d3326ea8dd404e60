"""What a message carries, and what its deliveries share and do not share."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from typing import Any

import pytest

from django_gomq.bus.errors import DecodeError
from django_gomq.bus.message import Message, decode_plain


def test_a_message_needs_no_more_than_a_type() -> None:
    message: Message[Any] = Message("a.b")

    assert (message.type, message.data) == ("a.b", None)
    assert (message.key, message.priority, message.delay) == (None, 5, 0.0)
    assert (message.headers, message.attempt) == ({}, 1)


def test_a_message_cannot_be_changed() -> None:
    message: Message[Any] = Message("a.b")

    with pytest.raises(AttributeError):
        message.priority = 9  # type: ignore[misc]


def test_its_time_is_the_moment_it_was_made() -> None:
    before = datetime.now(UTC).timestamp()
    message: Message[Any] = Message("a.b")
    after = datetime.now(UTC).timestamp()

    assert before - 1e-3 <= message.time.timestamp() <= after + 1e-3


def test_the_garbage_collector_does_not_look_at_messages() -> None:
    assert not gc.is_tracked(Message("a.b"))


def test_data_that_is_nothing_is_decoded_once_too() -> None:
    decoded: list[None] = []
    message = Message[Any]("a.b").for_delivery(1, lambda _: decoded.append(None))

    assert [message.data, message.data] == [None, None]
    assert decoded == [None]


def test_a_delivery_is_the_same_message_at_another_attempt() -> None:
    message: Message[Any] = Message(
        "a.b", b"1", key="k", priority=7, headers={"x": "1"}, delay=3.0, time_ns=9
    )

    delivered = message.for_delivery(4, decode_plain)

    expected = {name: getattr(message, name) for name in message.__struct_fields__}
    found = {name: getattr(delivered, name) for name in message.__struct_fields__}
    assert found == expected | {"attempt": 4, "decoded": []}


def test_data_outside_a_delivery_is_decoded_at_each_look_and_nothing_is_kept() -> None:
    message: Message[Any] = Message("a.b", b"[1]")

    message.data.append(2)

    assert message.data == [1]


def test_a_delivery_shares_the_bytes_of_the_body() -> None:
    message: Message[Any] = Message("a.b", b'"' + b"x" * 1000 + b'"')

    assert message.for_delivery(1, decode_plain).body is message.body


@pytest.mark.parametrize(
    "body",
    [b"NaN", b"1 2", b"1e400", b'"\\ud800"', b'{"\xff": 1}', b'{"a":' * 100_000],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_nearly_json_is_a_decode_error(body: bytes) -> None:
    message: Message[Any] = Message("a.b", body)

    with pytest.raises(DecodeError, match="is not JSON") as caught:
        _ = message.data

    assert caught.value.event == "a.b"


def test_a_body_that_cannot_be_decoded_fails_at_every_look() -> None:
    message: Message[Any] = Message("a.b", b"{")

    for _ in range(2):
        with pytest.raises(DecodeError):
            _ = message.data
