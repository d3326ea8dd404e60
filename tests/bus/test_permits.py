"""What both kinds of buffers promise: order, a hard bound, a call when room comes."""

from __future__ import annotations

import functools
import signal
import threading
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.backends.memory import buffer as lock_free
from django_gomq.backends.memory.buffer import PublishBuffer
from django_gomq.bus.channels import channel, permits
from django_gomq.bus.channels.channel import Channel
from django_gomq.bus.errors import ConfigurationError
from tests.bus.interleaving import interleaved
from tests.bus.interrupting import Interrupted
from tests.bus.waiting import LONG, run_threads, wait_until

Buffer = Channel[Any] | PublishBuffer[Any]
KINDS: list[type[Buffer]] = [Channel, PublishBuffer]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[Buffer]:
    found: type[Buffer] = request.param
    return found


def test_items_leave_in_the_order_they_came(kind: type[Buffer]) -> None:
    buffer = kind(10)

    for number in range(5):
        buffer.put(number)

    assert list(buffer.take(10)) == [0, 1, 2, 3, 4]


def test_a_higher_priority_leaves_first(kind: type[Buffer]) -> None:
    buffer = kind(10)

    for item, priority in (("low", 0), ("mid", 5), ("top", 9), ("mid2", 5)):
        buffer.put(item, priority)

    assert list(buffer.take(3)) == ["top", "mid", "mid2"]
    assert list(buffer.take(3)) == ["low"]


def test_the_bound_holds_over_all_priorities_together(kind: type[Buffer]) -> None:
    buffer = kind(3)

    taken = [buffer.put(number, number) for number in range(5)]

    assert taken == [True, True, True, False, False]
    assert len(buffer) == 3


def test_a_taken_item_keeps_its_room_until_it_is_released(kind: type[Buffer]) -> None:
    buffer = kind(1)
    buffer.put("a")

    buffer.take(1)

    assert (buffer.has_room, buffer.room) == (False, 0)
    buffer.release(1)
    assert (buffer.has_room, buffer.room) == (True, 1)
    assert buffer.put("b")


def test_taking_from_an_empty_buffer_gives_nothing(kind: type[Buffer]) -> None:
    assert not kind(1).take(5)


def test_taking_nothing_changes_nothing(kind: type[Buffer]) -> None:
    buffer = kind(2)
    buffer.put("a")

    assert not buffer.take(0)
    assert (len(buffer), bool(buffer), buffer.held) == (1, True, 1)


def test_an_item_that_comes_again_waits_behind_its_equals(kind: type[Buffer]) -> None:
    buffer = kind(5)
    for item in "ab":
        buffer.put(item)
    (first,) = buffer.take(1)

    buffer.put_again(first, 5)

    assert list(buffer.take(2)) == ["b", "a"]
    assert buffer.held == 2


def test_permits_are_taken_one_by_one_as_far_as_they_go(kind: type[Buffer]) -> None:
    buffer = kind(2)

    assert [buffer.try_permit() for _ in range(3)] == [True, True, False]


def test_many_permits_are_taken_as_far_as_they_go(kind: type[Buffer]) -> None:
    buffer = kind(3)

    assert [buffer.try_permits(2), buffer.try_permits(2)] == [2, 1]
    assert buffer.try_permits(1) == 0


def test_permits_of_items_that_never_came_go_back(kind: type[Buffer]) -> None:
    buffer = kind(2)
    buffer.try_permits(2)

    buffer.return_permits(2)

    assert buffer.held == 0
    assert buffer.has_room


def test_permits_that_come_back_unused_wake_who_waits(kind: type[Buffer]) -> None:
    buffer, woken = kind(1), list[int]()
    assert buffer.try_permit()
    assert buffer.call_when_room(lambda: woken.append(1))

    buffer.return_permits(1)

    assert woken == [1]


def test_a_grown_buffer_takes_more_at_once(kind: type[Buffer]) -> None:
    buffer = kind(1)
    buffer.put("a")

    buffer.resize(2)

    assert [buffer.put("b"), buffer.put("c")] == [True, False]
    assert buffer.capacity == 2


def test_a_shrunk_buffer_refuses_until_it_is_below_its_new_bound(
    kind: type[Buffer],
) -> None:
    buffer = kind(4)
    for number in range(4):
        buffer.put(number)
    buffer.resize(2)
    buffer.take(4)

    answers = []
    for _ in range(3):
        buffer.release(1)
        answers.append(buffer.has_room)

    assert answers == [False, False, True]


def test_growing_again_pays_the_debt_of_a_shrink(kind: type[Buffer]) -> None:
    buffer = kind(4)
    for number in range(4):
        buffer.put(number)

    buffer.resize(1)
    buffer.resize(5)

    assert [buffer.put(4), buffer.put(5)] == [True, False]


def test_a_permit_that_is_forced_comes_out_of_the_room_while_there_is_any(
    kind: type[Buffer],
) -> None:
    buffer = kind(2)

    buffer.force_permit()

    assert (buffer.held, buffer.room) == (1, 1)
    buffer.release(1)
    assert (buffer.held, buffer.room) == (0, 2)


def test_a_permit_that_is_forced_above_the_capacity_is_paid_by_a_release(
    kind: type[Buffer],
) -> None:
    buffer = kind(1)
    buffer.put("a")
    buffer.take(1)

    buffer.force_permit()

    assert (buffer.held, buffer.capacity, buffer.room) == (2, 1, 0)
    buffer.release(1)
    assert (buffer.held, buffer.put("b")) == (1, False)
    buffer.release(1)
    assert (buffer.held, buffer.put("c")) == (0, True)


def test_a_closed_buffer_refuses_and_can_be_emptied(kind: type[Buffer]) -> None:
    buffer = kind(2)
    buffer.put("a")

    buffer.close()
    buffer.close()

    assert not buffer.put("b")
    assert list(buffer.take(2)) == ["a"]
    buffer.release(1)
    assert (buffer.held, buffer.capacity, buffer.has_room) == (0, 0, False)


def test_a_closed_buffer_cannot_be_opened_by_a_resize(kind: type[Buffer]) -> None:
    buffer = kind(2)
    buffer.close()

    buffer.resize(5)

    assert not buffer.put("a")


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "8", None])
def test_what_is_no_capacity_is_refused(kind: type[Buffer], capacity: Any) -> None:
    with pytest.raises(ConfigurationError, match="whole number"):
        kind(capacity)
    with pytest.raises(ConfigurationError, match="whole number"):
        kind(1).resize(capacity)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers())), st.integers(1, 9))
@settings(deadline=None)
def test_draining_in_batches_sorts_by_priority_and_arrival(
    kind: type[Buffer], items: list[tuple[int, int]], batch: int
) -> None:
    buffer = kind(max(1, len(items)))
    for item in items:
        buffer.put(item, item[0])

    drained: list[tuple[int, int]] = []
    while buffer:
        drained += buffer.take(batch)

    assert drained == sorted(items, key=lambda item: -item[0])


# ------------------------------------------------------------- waiting for room


@pytest.fixture
def full(kind: type[Buffer]) -> Buffer:
    """A buffer of one, whose item is out."""
    buffer = kind(1)
    buffer.put("a")
    buffer.take(1)
    return buffer


def test_who_waits_for_room_is_called_at_the_next_release(full: Buffer) -> None:
    calls: list[int] = []

    is_waiting = full.call_when_room(lambda: calls.append(1))

    assert (is_waiting, calls) == (True, [])
    full.release(1)
    assert calls == [1]


def test_who_asks_while_there_is_room_is_not_called(kind: type[Buffer]) -> None:
    assert not kind(1).call_when_room(lambda: None)


def test_who_asks_twice_is_called_once(full: Buffer) -> None:
    calls: list[int] = []
    wake = functools.partial(calls.append, 1)
    full.call_when_room(wake)
    full.call_when_room(wake)

    full.resize(5)

    assert calls == [1]


def test_one_release_calls_one_of_many(full: Buffer) -> None:
    calls: list[int] = []
    for number in range(3):
        full.call_when_room(functools.partial(calls.append, number))

    full.release(1)

    assert calls == [0]


def test_room_that_nobody_used_can_be_passed_on(full: Buffer) -> None:
    calls: list[int] = []
    for number in range(2):
        full.call_when_room(functools.partial(calls.append, number))
    full.release(1)

    full.pass_room_on()

    assert calls == [0, 1]


def test_without_room_there_is_nothing_to_pass_on(full: Buffer) -> None:
    calls: list[int] = []
    full.call_when_room(functools.partial(calls.append, 1))

    full.pass_room_on()

    assert not calls


def test_a_larger_bound_calls_who_waits(full: Buffer) -> None:
    calls: list[int] = []
    full.call_when_room(functools.partial(calls.append, 1))

    full.resize(2)

    assert calls == [1]


def test_closing_calls_everybody_who_waits(full: Buffer) -> None:
    calls: list[int] = []
    for number in range(3):
        full.call_when_room(functools.partial(calls.append, number))

    full.close()

    assert calls == [0, 1, 2]
    assert not full.call_when_room(lambda: None)


def test_a_wait_for_room_ends_when_it_comes(full: Buffer) -> None:
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(full.wait_for_room(LONG)))
    waiter.start()
    wait_until(lambda: len(full._waiters) == 1)

    full.release(1)

    waiter.join(LONG)
    assert answers == [True]


def test_a_wait_for_room_ends_at_its_timeout_and_leaves_nothing_behind(
    full: Buffer,
) -> None:
    assert not full.wait_for_room(0.001)
    assert not full._waiters


def test_a_wait_for_room_that_is_there_ends_at_once(kind: type[Buffer]) -> None:
    assert kind(1).wait_for_room(LONG)


def test_a_wait_without_end_is_possible(full: Buffer) -> None:
    waiter = threading.Thread(target=lambda: full.wait_for_room(float("inf")))
    waiter.start()
    wait_until(lambda: len(full._waiters) == 1)

    full.close()

    waiter.join(LONG)
    assert not waiter.is_alive()


def test_every_waiting_thread_gets_its_turn(full: Buffer) -> None:
    got: deque[int] = deque()

    def put(number: int) -> None:
        while not full.put(number):
            assert full.wait_for_room(LONG)
        got.append(number)

    def make_room() -> None:
        full.release(1)
        for number in range(1, 5):
            wait_until(lambda number=number: len(got) == number)  # type: ignore[misc]
            full.release(len(full.take(1)))

    run_threads(*(functools.partial(put, number) for number in range(5)), make_room)

    assert sorted(got) == [0, 1, 2, 3, 4]


def test_racing_threads_never_hold_more_permits_than_there_are(
    kind: type[Buffer],
) -> None:
    buffer, inside = kind(4), deque[None]()
    most = [0]

    def come_and_go(wanted: int) -> None:
        before = 0
        for _ in range(500):
            got = buffer.try_permits(wanted)
            inside.extend([None] * got)
            most[0] = max(most[0], len(inside))
            assert len(inside) <= 4
            for _ in range(before):
                inside.pop()
            buffer.return_permits(before)
            before = got  # held a while, so that there is seldom any left
        for _ in range(before):
            inside.pop()
        buffer.return_permits(before)

    with interleaved(channel, lock_free, permits):
        run_threads(*(functools.partial(come_and_go, 1 + n % 3) for n in range(4)))

    assert most[0] == 4
    assert (buffer.held, buffer.room) == (0, 4)


def test_racing_threads_never_put_more_than_there_is_room_for(
    kind: type[Buffer],
) -> None:
    buffer, inside = kind(2), deque[None]()
    taken = [0] * 4

    def put_and_take(number: int) -> None:
        for _ in range(500):
            if buffer.put(number):
                inside.append(None)
                assert len(inside) <= 2
                continue
            count = len(buffer.take(1))
            for _ in range(count):
                wait_until(lambda: inside)  # who put it may not have noted it yet
                inside.pop()
            taken[number] += count
            buffer.release(count)

    with interleaved(channel, lock_free, permits):
        run_threads(*(functools.partial(put_and_take, n) for n in range(4)))

    left = len(buffer.take(9))
    assert (buffer.held, len(inside)) == (left, left)
    assert all(taken)


def test_an_interrupted_wait_leaves_nothing_behind(
    full: Buffer, interrupts: threading.Event
) -> None:
    me = threading.get_ident()
    interrupts.set()

    def interrupt() -> None:
        wait_until(lambda: len(full._waiters) == 1)
        signal.pthread_kill(me, signal.SIGVTALRM)

    other = threading.Thread(target=interrupt)
    other.start()

    with pytest.raises(Interrupted):
        full.wait_for_room(LONG)

    other.join()
    assert not full._waiters


def test_an_interrupted_wait_hands_its_room_to_the_next(full: Buffer) -> None:
    calls: list[int] = []

    class Bed:
        def acquire(self, timeout: float = 0) -> bool:
            if not timeout:
                return True
            full.call_when_room(lambda: calls.append(1))
            full.release(1)  # calls us; the exception comes in the same moment
            raise Interrupted

        def release(self) -> None:
            """Wake nobody."""

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("django_gomq.bus.channels.permits.Lock", Bed)
        full.wait_for_room(LONG)

    assert calls == [1]


def test_no_thread_waits_for_room_in_vain(kind: type[Buffer]) -> None:
    buffer, most = kind(2), 100
    taken: deque[int] = deque()

    def put() -> None:
        for number in range(most):
            while not buffer.put(number):
                assert buffer.wait_for_room(LONG), "room came and nobody was called"

    def take() -> None:
        while len(taken) < 6 * most:
            items = buffer.take(1)
            taken.extend(items)
            buffer.release(len(items))

    with interleaved(channel, lock_free, permits):
        run_threads(*[put] * 6, take)

    assert sorted(taken) == sorted(list(range(most)) * 6)
    assert (buffer.held, len(buffer._waiters)) == (0, 0)
