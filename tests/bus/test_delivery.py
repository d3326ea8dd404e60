"""Deliveries that travel together, and what is known of their waiting."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.delivery import Chunk, Delivery, join
from django_gomq.bus.message import Message
from tests.bus.waiting import LONG, fast_switching, run_threads

MOMENTS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


def run_of(*moments: float) -> Chunk:
    return Chunk(Delivery(Message("a.b"), moment) for moment in moments)


def test_two_deliveries_are_equal_only_if_they_are_one() -> None:
    message: Message[Any] = Message("a.b")
    one, other = Delivery(message, 1.0), Delivery(message, 1.0)

    assert one == one  # noqa: PLR0124 - the point
    assert one != other


def test_a_delivery_is_the_first_attempt_and_has_no_token_unless_it_says_so() -> None:
    delivery = Delivery(Message("a.b"), 1.0)

    assert (delivery.attempt, delivery.token) == (1, None)


# ----------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    "part",
    [slice(0, 2), slice(1, None), slice(None, -1), slice(3, 9), slice(None, None, 2)],
    ids=repr,
)
def test_a_part_of_a_run_leaves_the_run_as_it_is(part: slice) -> None:
    run = run_of(1, 2, 3)
    before = list(run)

    found = run[part]

    assert list(found) == before[part]
    assert list(run) == before


def test_a_member_of_a_run_is_a_delivery() -> None:
    run = run_of(1, 2, 3)

    assert [run[0], run[-1]] == list(run)[::2]


def test_runs_are_joined_in_their_order() -> None:
    one, other = run_of(1, 2), tuple(run_of(3))

    found = join([one, other, one])

    assert type(found) is Chunk
    assert list(found) == [*one, *other, *one]
    assert len(one) == 2


@given(MOMENTS, st.data())
@settings(deadline=None)
def test_a_run_knows_since_when_each_part_of_it_waits(
    moments: list[float], data: st.DataObject
) -> None:
    run = run_of(*moments)
    first = data.draw(st.integers(0, len(moments) - 1))

    assert run.available == moments
    assert Chunk(run[first:]).available == moments[first:]


def test_a_message_in_a_run_waits_since_its_delay_was_over() -> None:
    now = time.monotonic()
    made = now - 5000
    messages: list[Any] = [
        Message("a.b", made_here=made),
        Message("a.b", made_here=made, delay=2000.0),
        Message("a.b", made=time.time() - 5000, number="made elsewhere"),
        Delivery(Message("a.b"), 7.0),
    ]

    available = Chunk(messages).available

    moments = [now - 5000, now - 3000, now - 5000, 7.0]
    assert available == pytest.approx(moments, abs=LONG)
    for message, moment in zip(messages, available, strict=True):
        assert moment == pytest.approx(message.available, abs=LONG)


def test_nothing_is_looked_at_before_somebody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unread:
        def __getattr__(self, name: str) -> None:
            looks.append(name)
            raise AttributeError

    looks: list[str] = []
    run = Chunk([Unread(), Unread()])  # type: ignore[list-item]

    join([run, run[1:]])

    assert looks == []


def test_threads_that_share_a_run_find_the_same() -> None:
    runs = [run_of(*range(100)) for _ in range(50)]
    found: deque[Any] = deque()

    def look() -> None:
        found.extend(run.available for run in runs)

    with fast_switching():
        run_threads(*[look] * 4)

    assert set(map(repr, found)) == {repr(list(range(100)))}
