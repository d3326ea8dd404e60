"""Ids of messages: unique, sorted as they were made, and made for who looks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus import message as module
from django_gomq.bus.message import Message
from tests.bus.waiting import fast_switching, run_threads

MOMENT = 1_700_000_000.125
MOMENTS = st.floats(0, (2**48 - 1) / 1000)
Become = Callable[[int], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Be another process, which has drawn these bits."""

    def be(drawn: int) -> None:
        process = SimpleNamespace(drawn=drawn)
        monkeypatch.setattr(module, "current", lambda: process)

    return be


@given(MOMENTS)
@settings(deadline=None)
def test_an_id_is_a_uuid_of_version_7(moment: float) -> None:
    made = uuid.UUID(Message("a.b", made=moment).id)

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


@given(MOMENTS)
@settings(deadline=None)
def test_an_id_begins_with_its_milliseconds(moment: float) -> None:
    made = uuid.UUID(Message("a.b", made=moment).id)

    assert made.int >> 80 == int(moment * 1000)


def test_an_id_is_written_as_every_uuid() -> None:
    made = Message("a.b").id

    assert made == str(uuid.UUID(made))


@pytest.mark.parametrize("number", [0, 1, 2**47, 2**48 - 1])
def test_a_number_fills_the_last_48_bits_of_its_id(number: int) -> None:
    made = Message("a.b", made=MOMENT, number=number).id

    assert uuid.UUID(made).int & (2**48 - 1) == number
    assert len(made) == 36


def test_ids_of_one_millisecond_sort_in_the_order_they_were_made() -> None:
    made = [Message("a.b", made=MOMENT).id for _ in range(1000)]

    assert made == sorted(set(made))


def test_ids_sort_in_the_order_they_were_made_as_time_goes_on() -> None:
    made = [Message("a.b").id for _ in range(5000)]

    assert made == sorted(set(made))


@given(st.lists(MOMENTS, min_size=2, max_size=20))
@settings(deadline=None)
def test_ids_sort_by_time_before_all_else(moments: list[float]) -> None:
    made = [Message("a.b", made=moment).id for moment in sorted(moments)]

    assert made == sorted(set(made))


def test_ids_sort_as_made_in_whatever_order_they_are_looked_at() -> None:
    messages = [Message("a.b", made=MOMENT) for _ in range(100)]

    looked_at = {id(one): one.id for one in reversed(messages)}

    made = [looked_at[id(one)] for one in messages]
    assert made == sorted(set(made))


def test_an_id_is_the_same_at_every_look() -> None:
    message = Message("a.b")

    assert message.id == message.id


def test_an_id_that_was_made_elsewhere_is_kept() -> None:
    message = Message("a.b", number="0190-elsewhere", made=MOMENT)

    assert message.id == "0190-elsewhere"


def test_ids_made_by_racing_threads_differ() -> None:
    made: list[str] = []

    def make() -> None:
        made.extend([Message("a.b").id for _ in range(2000)])

    with fast_switching():
        run_threads(*[make] * 8)

    assert len(set(made)) == 16_000


def test_each_racing_thread_makes_its_ids_in_order() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def make(mine: list[str]) -> None:
        mine += [Message("a.b", made=MOMENT).id for _ in range(2000)]

    with fast_switching():
        run_threads(*(lambda mine=mine: make(mine) for mine in made))

    assert all(mine == sorted(set(mine)) for mine in made)


@given(st.integers(0, 2**32 - 1), st.integers(0, 31))
@settings(deadline=None)
def test_what_two_processes_drew_tells_their_ids_apart(one: int, bit: int) -> None:
    has_room = bit < 14 or bit >= 20  # of 32 bits, a UUID has room for 26
    ids = []

    for drawn in (one, one ^ 1 << bit):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "current", lambda: SimpleNamespace(drawn=drawn))  # noqa: B023
            ids.append(Message("a.b", made=MOMENT, number=7).id)

    assert (ids[0] != ids[1]) is has_room


def test_what_a_process_drew_changes_neither_time_nor_number(become: Become) -> None:
    become(2**32 - 1)

    made = uuid.UUID(Message("a.b", made=MOMENT, number=7).id)

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert (made.int >> 80, made.int & (2**48 - 1)) == (int(MOMENT * 1000), 7)


def test_a_message_gets_an_id_of_its_moment() -> None:
    before = int(time.time() * 1000)
    message = Message("a.b")
    after = int(time.time() * 1000)

    assert before <= uuid.UUID(message.id).int >> 80 <= after


def test_two_messages_have_two_ids() -> None:
    assert Message("a.b").id != Message("a.b").id
