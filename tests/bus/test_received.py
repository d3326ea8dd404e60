"""What a handler gets: the message, with data and headers of its own."""

from __future__ import annotations

import copy
import gc
import pickle
import pprint
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from django_gomq.bus.data.codec import decode_as
from django_gomq.bus.dead_letters import make_dead_letter
from django_gomq.bus.delivery import DeliveredMessage, Delivery, receive
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message
from tests.bus.waiting import run_threads

FIELDS = ("type", "body", "key", "priority", "delay", "made", "time", "number", "id")


def received(message: Message[Any], attempt: int = 1, **decoders: Any) -> Any:
    """Return what a handler of this type's decoder gets."""
    by_type = {name.replace("_", "."): decode for name, decode in decoders.items()}
    return receive(Delivery(message, 0.0, attempt), by_type)


@pytest.mark.parametrize(
    "message",
    [
        Message("a.b"),
        Message("a.b", b"1", "k", 7, {"x": "1"}, 3.0, 9.0, "made-elsewhere"),
    ],
    ids=["plain", "special"],
)
def test_it_reads_as_the_message(message: Message[Any]) -> None:
    found = received(message)

    assert [getattr(found, name) for name in FIELDS] == [
        getattr(message, name) for name in FIELDS
    ]
    assert found.headers == message.headers
    assert isinstance(found, Message)


def test_it_knows_its_attempt() -> None:
    assert received(Message("a.b"), attempt=4).attempt == 4


def test_a_message_that_is_its_own_delivery_is_received_at_the_first_attempt() -> None:
    message = Message[Any]("a.b", b"[1]")

    found = DeliveredMessage[Any](message, {})  # type: ignore[arg-type]

    assert (found.attempt, found.data, found.id) == (1, [1], message.id)


def test_it_shares_the_bytes_of_the_body() -> None:
    message: Message[Any] = Message("a.b", b'"' + b"x" * 1000 + b'"')

    assert received(message).body is message.body


def test_it_cannot_be_changed() -> None:
    found = received(Message("a.b"))

    with pytest.raises(AttributeError):
        found.decoded = 1


def test_the_garbage_collector_does_not_look_at_it() -> None:
    assert not gc.is_tracked(received(Message("a.b")))


# ---------------------------------------------------------------------------- data


def test_data_is_decoded_once_and_at_the_first_look() -> None:
    decoded: list[str] = []
    found = received(Message("a.b"), a_b=lambda message: decoded.append(message.id))
    before = list(decoded)

    looks = [found.data, found.data]

    assert before == []
    assert looks == [None, None]
    assert decoded == [found.id]


def test_data_that_was_decoded_stays_the_same_object() -> None:
    found = received(Message("a.b", b'{"n": 1}'))

    found.data["n"] = 2

    assert found.data == {"n": 2}


def test_data_of_a_type_without_a_decoder_is_plain_json() -> None:
    found = received(Message("a.b", b"[1]"), x_y=lambda _: "typed")

    assert found.data == [1]


def test_data_of_a_type_with_a_decoder_is_what_that_makes_of_it() -> None:
    found = received(Message("x.y", b"[1]"), x_y=lambda message: message.body)

    assert found.data == b"[1]"


def test_a_body_that_cannot_be_decoded_fails_at_every_look() -> None:
    found = received(Message("a.b", b"{"))

    for _ in range(2):
        with pytest.raises(DecodeError, match="is not JSON"):
            _ = found.data


def pickled(found: Any) -> Any:
    return pickle.loads(pickle.dumps(found))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("is_read", [False, True])
def test_a_copy_of_it_reads_the_same(copied: Any, *, is_read: bool) -> None:
    found = received(Message("a.b", b"[1]", headers={"x": "1"}), attempt=2)
    if is_read:
        assert (found.data, found.headers) == ([1], {"x": "1"})

    other = copied(found)

    assert (other.data, other.headers, other.attempt) == ([1], {"x": "1"}, 2)
    assert (other.id, other.time) == (found.id, found.time)


class Saved(Event, type="bus_tests.received"):
    record_id: int


def typed(attempt: int = 3) -> Message[Saved]:
    message: Message[Any] = Message("bus_tests.received", b'{"record_id":7}', "k")
    delivery = Delivery(message, 0.0, attempt, token=lambda: None)
    return receive(delivery, {"bus_tests.received": decode_as(Saved)})


def read(message: Message[Saved]) -> tuple[str, Saved, int, str | None]:
    """Return what another process reads."""
    return message.id, message.data, message.attempt, message.key


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_typed_one_has_typed_data(copied: Any) -> None:
    found = typed()

    assert read(copied(found)) == (found.id, Saved(record_id=7), 3, "k")


def test_a_pool_of_processes_can_be_given_a_typed_one() -> None:
    found = typed()

    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        answer = pool.submit(read, found).result(240)

    assert answer == (found.id, Saved(record_id=7), 3, "k")


def test_one_that_is_its_own_first_delivery_can_be_pickled() -> None:
    message = Message[Any]("a.b", b"[1]")

    found = pickled(DeliveredMessage[Any](message, {}))  # type: ignore[arg-type]

    assert (found.id, found.data) == (message.id, [1])


SECRET = "hunter2"


@pytest.mark.parametrize("show", [repr, str, ascii, pprint.pformat])
@pytest.mark.parametrize("attempt", [1, 2])
def test_what_is_shown_of_a_message_says_which_it_is_and_no_more(
    show: Any, attempt: int
) -> None:
    message: Message[Any] = Message(
        "a.b", f'"{SECRET}"'.encode(), SECRET, headers={"auth": SECRET}
    )
    found = received(message, attempt)
    assert (found.data, found.headers) == (SECRET, {"auth": SECRET})

    assert show(found) == f"<Message a.b {message.id} attempt {attempt}>"
    assert show(message) == f"<Message a.b {message.id} attempt 1>"
    assert SECRET not in show(found.delivery)
    assert SECRET not in str(found.__rich_repr__())
    assert SECRET not in show(
        make_dead_letter("default", "audit", found.delivery, ValueError())
    )


# ------------------------------------------------------------- of one delivery alone


def test_each_delivery_has_headers_and_data_of_its_own() -> None:
    message = Message[Any]("a.b", b'{"n": 1}', headers={"h": "1"})
    one, other = received(message, 2), received(message)

    one.data["n"] = 9
    one.headers["h"] = "9"

    assert (one.data, one.headers) == ({"n": 9}, {"h": "9"})
    assert (other.data, other.headers) == ({"n": 1}, {"h": "1"})
    assert message.headers == {"h": "1"}


def test_headers_of_a_message_without_any_can_be_written_to() -> None:
    message: Message[Any] = Message("a.b")
    one, other = received(message), received(message)

    one.headers["x"] = "1"

    assert (one.headers, other.headers) == ({"x": "1"}, {})
    assert Message[Any]("a.b").headers == {}


def test_headers_added_before_the_publish_are_received() -> None:
    message: Message[Any] = Message("a.b")

    message.add_headers({"x": "1"})

    assert received(message).headers == {"x": "1"}


def test_threads_that_share_a_message_share_no_data() -> None:
    message = Message[Any]("a.b", b"[]")
    seen: list[list[int]] = []

    def handle() -> None:
        mine = received(message)
        mine.data.append(len(mine.data))
        seen.append(mine.data)

    run_threads(*[handle] * 8)

    assert seen == [[0]] * 8
