"""Dead letters that a process keeps, to be looked at, replayed and discarded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.dead_letters import (
    DeadLetter,
    DeadLetterRing,
    fault_of,
    make_dead_letter,
    trace_id_of,
)
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.waiting import fast_switching, run_threads, wait_until_settled


def letter(number: int = 0) -> DeadLetter:
    delivery = Delivery(Message("a.b", b"%d" % number), 0.0, 3)
    try:
        raise ValueError(f"number {number}")
    except ValueError as error:
        return make_dead_letter("b", "c", delivery, error)


def test_a_dead_letter_says_what_was_given_up_by_whom_and_why() -> None:
    made = letter(7)

    assert (made.message.body, made.consumer, made.attempt) == (b"7", "c", 3)
    assert (made.broker, made.error_type) == ("b", "ValueError")
    assert made.error == "ValueError: number 7"
    assert made.first_failed == made.time
    assert made.trace_id == ""
    assert "in letter" in made.traceback


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ("ValueError: no 17, of 1,000.5", "ValueError: no #, of #"),
        ("KeyError: 01a22641-d1ff-709b-a795-5d94f7889a48 gone", "KeyError: # gone"),
        ("TypeError: <object at 0x7f33aBc0>", "TypeError: <object at #>"),
        ("Reject: not mine", "Reject: not mine"),
    ],
)
def test_errors_that_differ_in_numbers_are_one_fault(error: str, fault: str) -> None:
    assert fault_of(error) == fault


TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Carried:
    """What an observer has a message carry in the place of headers."""

    def write(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-00"}


def test_the_trace_is_that_of_the_headers_or_of_what_an_observer_left() -> None:
    named = Message[Any](
        "a.b", headers={"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
    )
    wrong = Message[Any]("a.b", headers={"traceparent": "what?"})
    carrying = Message[Any]("a.b", trace_context=Carried())

    found = [trace_id_of(each) for each in (named, carrying, wrong, Message("a.b"))]

    assert found == [TRACE_ID, TRACE_ID, "", ""]


def test_later_letters_sort_behind_earlier_ones() -> None:
    ids = [letter().id for _ in range(300)]

    assert ids == sorted(set(ids))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_ring_keeps_the_latest(size: int) -> None:
    ring, letters = DeadLetterRing(size), [letter() for _ in range(5)]

    for each in letters:
        ring.add(each)

    assert ring.list() == letters[5 - size :]


def test_a_ring_is_read_page_by_page() -> None:
    ring, letters = DeadLetterRing(), [letter() for _ in range(5)]
    for each in letters:
        ring.add(each)

    first = ring.list(limit=2)
    rest = ring.list(after=first[-1].id, limit=9)

    assert first + rest == letters


def test_each_letter_is_taken_once() -> None:
    ring, letters = DeadLetterRing(), [letter() for _ in range(3)]
    for each in letters:
        ring.add(each)

    taken = ring.take([letters[1].id, "unknown", letters[1].id])

    assert list(taken) == [letters[1]]
    assert ring.list() == [letters[0], letters[2]]


def test_one_that_was_put_back_has_its_old_place() -> None:
    ring, letters = DeadLetterRing(), [letter() for _ in range(3)]
    for each in letters:
        ring.add(each)

    for each in ring.take([letters[0].id]):
        ring.add(each)

    assert ring.list() == letters


def test_racing_threads_take_each_letter_once() -> None:
    ring, letters = DeadLetterRing(2000), [letter() for _ in range(900)]
    taken: list[DeadLetter] = []

    def add(start: int) -> None:
        for each in letters[start::3]:
            ring.add(each)

    def take() -> None:
        while len(taken) < len(letters):
            taken.extend(ring.take([each.id for each in ring.list(limit=50)]))

    with fast_switching():
        run_threads(*(functools.partial(add, start) for start in range(3)), take, take)

    assert sorted(each.id for each in taken) == [each.id for each in letters]


# ------------------------------------------------------------------ on a broker


class Mended:
    """A handler that fails until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.handled: list[int] = []

    def __call__(self, message: Message[Any]) -> None:
        if not self.is_mended:
            raise ValueError
        self.handled.append(message.data)


@pytest.fixture
def handler() -> Mended:
    return Mended()


def bury(broker: Broker, count: int) -> list[DeadLetter]:
    for number in range(count):
        broker.publish(Message("a.b", b"%d" % number))
    wait_until_settled(broker)
    return broker.dead_letters()


def test_a_broker_keeps_the_latest(make_broker: MakeBroker, handler: Mended) -> None:
    broker = make_broker(dead_letters=2)
    broker.consume("a.b", handler, name="c")

    letters = bury(broker, 4)

    assert [each.message.body for each in letters] == [b"2", b"3"]
    assert broker.stats().consumers["c"].dead_lettered == 4


def test_all_that_a_broker_keeps_are_read_while_they_are_discarded(
    broker: Broker, handler: Mended
) -> None:
    broker.consume("a.b", handler, name="c")
    letters = bury(broker, 3)

    found = [one for one in broker.iter_dead_letters() if broker.discard([one.id])]

    assert found == letters
    assert broker.dead_letters() == []


def test_replayed_letters_are_handled_again_and_the_law_holds(
    broker: Broker, handler: Mended
) -> None:
    broker.consume("a.b", handler, name="c")
    letters = bury(broker, 3)
    handler.is_mended = True

    count = broker.replay([letters[0].id, letters[2].id, "unknown"])
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert (count, handler.handled) == (2, [0, 2])
    assert broker.dead_letters() == [letters[1]]
    assert (stats.dispatched, stats.dead_lettered) == ({"a.b": 5}, 3)
    assert (stats.succeeded, stats.unaccounted) == (2, 0)


def test_what_finds_no_room_stays_a_dead_letter(
    broker: Broker, handler: Mended
) -> None:
    broker.consume("a.b", handler, name="c", capacity=3)
    letters = bury(broker, 3)
    broker.pause("c")
    broker.resize("c", 1)

    count = broker.replay([each.id for each in letters])

    assert count == 1
    assert broker.dead_letters() == letters[1:]


def test_a_broker_that_is_closed_replays_nothing(
    broker: Broker, handler: Mended
) -> None:
    broker.consume("a.b", handler, name="c")
    letters = bury(broker, 1)
    broker.close()

    assert broker.replay([letters[0].id]) == 0
    assert broker.dead_letters() == letters


def test_discarded_letters_are_gone(broker: Broker, handler: Mended) -> None:
    broker.consume("a.b", handler, name="c")
    letters = bury(broker, 3)

    count = broker.discard([letters[0].id, letters[1].id, "unknown"])

    assert count == 2
    assert broker.dead_letters() == letters[2:]
