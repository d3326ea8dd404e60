"""The buffer that publishers put into without a lock; see test_permits for the rest."""

from __future__ import annotations

import gc
import signal
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_gomq.backends.memory.buffer import PublishBuffer
from django_gomq.bus.delivery import Chunk
from tests.bus.interrupting import Interrupted
from tests.bus.machines import for_long
from tests.bus.waiting import fast_switching, run_threads, wait_until
from tests.untraced import untraced

Buffer = PublishBuffer[Any]


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Let a signal handler's exceptions come up only in the lines of the test."""
    gc.disable()  # plugins have it call them, and what that raises is lost
    with untraced():
        yield
    gc.enable()


def test_a_put_may_be_made_of_its_two_steps() -> None:
    buffer = Buffer(1)

    buffer.pop_permit()
    buffer.levels[7].append("a")

    assert (buffer.put("b"), buffer.held, len(buffer)) == (False, 1, 1)
    assert buffer.take(1) == ["a"]
    with pytest.raises(IndexError):
        buffer.pop_permit()


def test_a_batch_may_be_of_any_kind() -> None:
    buffer = Buffer(3)
    for item in "abc":
        buffer.put(item)

    batch = buffer.take_into(Chunk(), 2)

    assert type(batch) is Chunk
    assert list(batch) == ["a", "b"]  # type: ignore[comparison-overlap]


def test_an_item_whose_equality_is_odd_is_not_lost() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    buffer, items = Buffer(3), [Odd(), None, 0]
    for item in items:
        buffer.put(item)

    taken = buffer.take(3)

    assert [id(item) for item in taken] == [id(item) for item in items]


def test_a_put_waits_for_no_lock() -> None:
    buffer = Buffer(2)

    with buffer._lock:
        done = [buffer.put("a"), buffer.try_permit(), buffer.put("b")]

    assert done == [True, True, False]


# ------------------------------------------------------------------- lost permits


@pytest.mark.usefixtures("undisturbed")
def test_a_put_that_a_signal_handler_ends_is_whole_lost_or_never_made(
    interrupts: threading.Event,
) -> None:
    buffer, capacity = Buffer(400_000), 400_000
    put, count = buffer.put, 0

    # A function of its own: a block of Python 3.13 does not catch what a signal raises
    # where a loop in it jumps back.
    def put_all() -> None:
        nonlocal count
        while put(count):
            count += 1

    for _ in range(60):
        count = 0
        with pytest.raises(Interrupted):
            interrupts.set()
            # The kernel counts this time in ticks of a few milliseconds.
            signal.setitimer(signal.ITIMER_VIRTUAL, 1e-6)
            put_all()
        taken = buffer.take(capacity)
        buffer.release(len(taken))

        assert taken == list(range(len(taken)))  # none twice, none out of order
        assert count <= len(taken) <= count + 1
        lost = buffer.held
        assert lost <= 1
        assert buffer.reconcile(patience=0) == lost
        assert buffer.room == capacity


def test_what_is_missing_and_stays_missing_is_lost() -> None:
    buffer = Buffer(4)
    buffer.try_permits(3)

    assert buffer.reconcile(patience=0.001) == 0
    wait_until(lambda: buffer.reconcile(patience=0.001) == 3)

    assert buffer.held == 0


def test_what_was_taken_is_not_lost() -> None:
    buffer = Buffer(4)
    buffer.put("out")
    buffer.take(1)
    buffer.try_permit()

    assert buffer.reconcile(patience=0) == 1
    assert buffer.held == 1


def test_a_permit_that_was_thought_lost_too_early_is_taken_back() -> None:
    buffer = Buffer(4)
    buffer.try_permit()
    assert buffer.reconcile(patience=0) == 1  # as if the process had stood still

    buffer.put_permitted(1)
    buffer.reconcile()

    assert buffer.held == 1
    assert buffer.try_permits(9) == 3


def test_what_cannot_be_taken_back_now_is_a_debt_of_later_releases() -> None:
    buffer = Buffer(2)
    buffer.try_permit()
    buffer.reconcile(patience=0)
    buffer.try_permits(2)
    for item in "abc":  # one more than there may be
        buffer.put_permitted(item)

    buffer.reconcile()
    buffer.take(3)
    rooms = []
    for _ in range(3):
        buffer.release(1)
        rooms.append(buffer.room)

    assert rooms == [0, 1, 2]


def test_a_permit_that_came_back_between_two_looks_is_not_the_one_that_is_missing() -> (
    None
):
    buffer = Buffer(4)
    buffer.try_permit()
    buffer.reconcile(patience=0.001)

    buffer.put_permitted("one")
    buffer.release(len(buffer.take(1)))
    buffer.try_permit()  # of another publisher: all numbers are as they were
    threading.Event().wait(0.002)

    assert buffer.reconcile(patience=0.001) == 0


def test_a_lost_permit_calls_who_waits_for_it() -> None:
    buffer, calls = Buffer(1), deque[int]()
    buffer.try_permit()
    buffer.call_when_room(lambda: calls.append(1))

    assert buffer.reconcile(patience=0) == 1
    assert list(calls) == [1]


def test_reconciling_while_publishers_race_gives_no_permit_too_many() -> None:
    buffer = Buffer(100_000)
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            if buffer.try_permit():
                buffer.put_permitted(1)

    def consume() -> None:
        while not stop.is_set():
            buffer.release(len(buffer.take(4000)))

    def reconcile() -> None:
        for _ in range(200):
            buffer.reconcile(patience=0.0005)
            threading.Event().wait(0.0005)
        stop.set()

    with fast_switching():
        run_threads(publish, publish, publish, publish, publish, consume, reconcile)

    buffer.reconcile(patience=0)
    assert buffer.held == len(buffer)


# ----------------------------------------------------------------- against a model


PRIORITY = st.sampled_from([0, 5, 5, 5, 9])  # so few that items lie behind one another


class BufferMachine(RuleBasedStateMachine):
    """The buffer beside a model that says the obvious."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer: PublishBuffer[object] = PublishBuffer(4)
        self.capacity = 4
        self.levels: list[list[object]] = [[] for _ in range(10)]
        self.out: list[tuple[object, int]] = []
        self.in_hand = 0
        self.closed = False

    @property
    def held(self) -> int:
        waiting = sum(map(len, self.levels))
        return waiting + len(self.out) + self.in_hand

    @rule(priority=PRIORITY)
    def put(self, priority: int) -> None:
        item = object()
        expected = self.held < self.capacity
        assert self.buffer.put(item, priority) is expected
        if expected:
            self.levels[priority].append(item)

    @rule()
    def take_a_permit(self) -> None:
        expected = self.held < self.capacity
        assert self.buffer.try_permit() is expected
        self.in_hand += expected

    @rule(wanted=st.integers(0, 4))
    def take_permits(self, wanted: int) -> None:
        expected = max(0, min(wanted, self.capacity - self.held))
        assert self.buffer.try_permits(wanted) == expected
        self.in_hand += expected

    @precondition(lambda self: self.in_hand)
    @rule(priority=PRIORITY)
    def put_permitted(self, priority: int) -> None:
        item = object()
        self.buffer.put_permitted(item, priority)
        self.levels[priority].append(item)
        self.in_hand -= 1

    @precondition(lambda self: self.in_hand)
    @rule(priority=PRIORITY)
    def put_many_permitted(self, priority: int) -> None:
        items = [object() for _ in range(self.in_hand)]
        self.buffer.put_many_permitted(items, priority)
        self.levels[priority] += items
        self.in_hand = 0

    @precondition(lambda self: self.in_hand)
    @rule()
    def return_permits(self) -> None:
        self.buffer.return_permits(self.in_hand)
        self.in_hand = 0

    @precondition(lambda self: self.in_hand)
    @rule()
    def lose_permits(self) -> None:
        assert self.buffer.reconcile(patience=60) == 0
        assert self.buffer.reconcile(patience=0) == self.in_hand
        self.in_hand = 0

    @rule(most=st.integers(0, 6))
    def take(self, most: int) -> None:
        expected = []
        for priority in range(9, -1, -1):
            while self.levels[priority] and len(expected) < most:
                expected.append((self.levels[priority].pop(0), priority))
        assert self.buffer.take(most) == [item for item, _ in expected]
        self.out += expected

    @precondition(lambda self: self.out)
    @rule()
    def come_again(self) -> None:
        item, priority = self.out.pop()
        self.buffer.put_again(item, priority)
        self.levels[priority].append(item)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.out)))
        del self.out[:count]
        self.buffer.release(count)

    @rule(capacity=st.integers(1, 8))
    def resize(self, capacity: int) -> None:
        self.buffer.resize(capacity)
        if not self.closed:
            self.capacity = capacity

    @precondition(lambda self: self.held > 3)
    @rule()
    def close(self) -> None:
        self.buffer.close()
        self.closed, self.capacity = True, 0

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.buffer.held == self.held
        assert self.buffer.capacity == self.capacity
        assert len(self.buffer) == sum(map(len, self.levels))
        assert bool(self.buffer) is any(self.levels)
        assert self.buffer.room == max(0, self.capacity - self.held)
        assert self.buffer.has_room is (self.held < self.capacity)


BufferMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
TestTheBufferAgreesWithItsModel = BufferMachine.TestCase
TestTheBufferAgreesForLong = for_long(BufferMachine)
