"""What a message carries: its data, its headers, and itself as a first delivery."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from django_gomq.bus.errors import DecodeError
from django_gomq.bus.message import NO_HEADERS, Message

Copy = Callable[[Message[Any]], Message[Any]]
TINY = 1e-6


def test_a_message_needs_no_more_than_a_type() -> None:
    message: Message[Any] = Message("a.b")

    assert (message.type, message.data) == ("a.b", None)
    assert (message.key, message.priority, message.delay) == (None, 5, 0.0)
    assert message.headers == {}


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


def test_data_outside_a_delivery_is_decoded_at_each_look_and_nothing_is_kept() -> None:
    message: Message[Any] = Message("a.b", b"[1]")

    message.data.append(2)

    assert message.data == [1]


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


# ------------------------------------------------------------------------- headers


def test_headers_that_are_added_are_a_messages_own() -> None:
    one, other = Message[Any]("a.b"), Message[Any]("a.b")

    one.add_headers({"x": "1"})

    assert (one.headers, other.headers) == ({"x": "1"}, {})


def test_headers_that_are_added_join_those_that_are_there() -> None:
    message: Message[Any] = Message("a.b", headers={"x": "1", "y": "2"})

    message.add_headers({"y": "3"})
    message.add_headers({"z": "4"})

    assert message.headers == {"x": "1", "y": "3", "z": "4"}


def test_headers_that_are_added_do_not_reach_the_dict_they_were_given() -> None:
    given = {"x": "1"}
    message: Message[Any] = Message("a.b", headers=given)

    message.add_headers({"y": "2"})

    assert given == {"x": "1"}


def set_one(headers: dict[str, str]) -> None:
    headers["x"] = "1"


def merge(headers: dict[str, str]) -> None:
    headers |= {"x": "1"}


WRITES: dict[str, Callable[[dict[str, str]], object]] = {
    "item": set_one,
    "update": lambda headers: headers.update({"x": "1"}),
    "setdefault": lambda headers: headers.setdefault("x", "1"),
    "or": merge,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_headers_that_all_messages_share_cannot_be_written_to(
    write: Callable[[dict[str, str]], object],
) -> None:
    message: Message[Any] = Message("a.b")

    try:
        with pytest.raises(TypeError, match=r"give them to Message\(headers"):
            write(message.headers)
        assert Message[Any]("x.y").headers == {}
    finally:
        if NO_HEADERS:  # no other test shall find it there
            dict.clear(NO_HEADERS)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_another_message_of_the_same_content(copied: Copy) -> None:
    plain, special = Message[Any]("a.b"), Message[Any]("a.b", headers={"x": "1"})

    assert copied(plain) is not plain
    assert copied(plain).headers is NO_HEADERS
    assert (copied(special).headers, copied(special).id) == ({"x": "1"}, special.id)


# --------------------------------------------------------- its own first delivery


def test_a_message_reads_as_its_own_first_delivery() -> None:
    message: Message[Any] = Message("a.b")

    assert message.message is message
    assert (message.attempt, message.token) == (1, None)


@pytest.mark.parametrize("delay", [0.0, 30.0])
def test_a_message_is_available_when_its_delay_is_over(delay: float) -> None:
    made = time.monotonic() - 100

    message: Message[Any] = Message("a.b", delay=delay, made_here=made)

    before = time.monotonic()
    available, age = message.available, message.age
    after = time.monotonic()
    # It reads the clock twice.
    assert made + delay - (after - before) - TINY <= available <= made + delay + TINY
    assert before - made <= age <= after - made


@pytest.mark.parametrize("delay", [0.0, 30.0])
def test_one_that_was_made_elsewhere_is_as_old_as_the_wall_clock_says(
    delay: float,
) -> None:
    before = time.monotonic()
    made = time.time() - 100

    message: Message[Any] = Message("a.b", delay=delay, made=made, number="an id")

    available = message.available
    after = time.monotonic()
    # The clocks may drift apart meanwhile.
    least, most = before - (after - before) - 1, after + 1
    assert least <= available + 100 - delay <= most


@pytest.mark.parametrize("other", [None, 1, "a.b", {}, object(), Message])
def test_nothing_else_is_a_message(other: object) -> None:
    assert isinstance(Message("a.b"), Message)
    assert not isinstance(other, Message)


@pytest.mark.parametrize(
    "body", [None, {"a": 1}, object()], ids=["none", "dict", "object"]
)
def test_a_body_that_is_no_bytes_says_how_messages_are_made(body: Any) -> None:
    with pytest.raises(
        DecodeError, match=r"bytes of JSON.*testing.call\(handler, event"
    ):
        _ = Message[Any]("a.b", body).data
