from __future__ import annotations

import functools
import itertools
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_gomq.bus.channel import Channel
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.permits import Permits
from tests.bus.waiting import fast_switching, run_threads, wait_until


def test_items_leave_in_the_order_they_came() -> None:
    channel: Channel[int] = Channel(10)

    for number in range(5):
        channel.put(number)

    assert channel.take(10) == [0, 1, 2, 3, 4]


def test_a_higher_priority_leaves_first() -> None:
    channel: Channel[str] = Channel(10)

    for item, priority in (("low", 0), ("mid", 5), ("top", 9), ("mid2", 5)):
        channel.put(item, priority)

    assert channel.take(3) == ["top", "mid", "mid2"]
    assert channel.take(3) == ["low"]


def test_the_bound_holds_over_all_priorities_together() -> None:
    channel: Channel[int] = Channel(3)

    taken = [channel.put(number, number) for number in range(5)]

    assert taken == [True, True, True, False, False]
    assert len(channel) == 3


def test_a_taken_item_keeps_its_room_until_it_is_released() -> None:
    channel: Channel[str] = Channel(1)
    channel.put("a")

    channel.take(1)

    assert not channel.has_room
    channel.release(1)
    assert channel.put("b")


def test_taking_nothing_from_an_empty_channel_gives_nothing() -> None:
    assert Channel(1).take(5) == []


def test_items_put_back_are_the_next_in_their_order() -> None:
    channel: Channel[str] = Channel(5)
    for item in "abc":
        channel.put(item)
    taken = channel.take(2)

    channel.put_back([(item, 5) for item in taken])

    assert channel.take(3) == ["a", "b", "c"]


def test_an_item_that_comes_again_waits_behind_its_equals() -> None:
    channel: Channel[str] = Channel(5)
    for item in "ab":
        channel.put(item)
    (first,) = channel.take(1)

    channel.put_again(first, 5)

    assert channel.take(2) == ["b", "a"]
    assert channel.held == 2


def test_many_permits_are_taken_as_far_as_they_go() -> None:
    channel: Channel[int] = Channel(3)

    assert [channel.try_permits(2), channel.try_permits(2)] == [2, 1]
    assert channel.try_permits(1) == 0


def test_permits_of_items_that_never_came_go_back() -> None:
    channel: Channel[int] = Channel(2)
    channel.try_permits(2)

    channel.return_permits(2)

    assert channel.held == 0
    assert channel.has_room


def test_eviction_takes_the_oldest_of_the_lowest_priority() -> None:
    channel: Channel[str] = Channel(5)
    for item, priority in (("mid", 5), ("low1", 1), ("low2", 1)):
        channel.put(item, priority)

    assert channel.evict_oldest(up_to=5) == "low1"


def test_eviction_spares_what_is_more_urgent_than_the_newcomer() -> None:
    channel: Channel[str] = Channel(5)
    channel.put("urgent", 9)

    assert channel.evict_oldest(up_to=5) is None
    assert len(channel) == 1


def test_an_evicted_item_leaves_its_room_to_the_newcomer() -> None:
    channel: Channel[str] = Channel(1)
    channel.put("old")

    channel.evict_oldest(up_to=5)
    channel.put_permitted("new", 5)

    assert channel.held == 1
    assert channel.take(2) == ["new"]


def test_chosen_items_leave_and_the_others_keep_their_order() -> None:
    channel: Channel[int] = Channel(9)
    for number in range(6):
        channel.put(number)

    odd = channel.take_where(lambda number: number % 2 == 1)

    assert odd == [1, 3, 5]
    assert channel.take(9) == [0, 2, 4]
    assert channel.held == 6


def test_the_first_of_each_priority_can_be_looked_at() -> None:
    channel: Channel[str] = Channel(9)
    for item, priority in (("a", 1), ("b", 1), ("c", 7)):
        channel.put(item, priority)

    assert channel.firsts() == ["c", "a"]
    assert len(channel) == 3


def test_a_grown_channel_takes_more_at_once() -> None:
    channel: Channel[str] = Channel(1)
    channel.put("a")

    channel.resize(2)

    assert [channel.put("b"), channel.put("c")] == [True, False]
    assert channel.capacity == 2


def test_a_shrunk_channel_refuses_until_it_is_below_its_new_bound() -> None:
    channel: Channel[int] = Channel(4)
    for number in range(4):
        channel.put(number)
    channel.resize(2)
    channel.take(4)

    answers = []
    for _ in range(3):
        channel.release(1)
        answers.append(channel.has_room)

    assert answers == [False, False, True]


def test_growing_again_pays_the_debt_of_a_shrink() -> None:
    channel: Channel[int] = Channel(4)
    for number in range(4):
        channel.put(number)

    channel.resize(1)
    channel.resize(5)

    assert [channel.put(4), channel.put(5)] == [True, False]


def test_a_closed_channel_refuses_and_can_be_emptied() -> None:
    channel: Channel[str] = Channel(2)
    channel.put("a")

    channel.close()
    channel.close()

    assert not channel.put("b")
    assert channel.take(2) == ["a"]
    channel.release(1)
    assert (channel.held, channel.capacity, channel.has_room) == (0, 0, False)


def test_a_closed_channel_cannot_be_opened_by_a_resize() -> None:
    channel: Channel[str] = Channel(2)
    channel.close()

    channel.resize(5)

    assert not channel.put("a")


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "8", None])
def test_what_is_no_capacity_is_refused(capacity: object) -> None:
    with pytest.raises(ConfigurationError, match="whole number"):
        Channel(capacity)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="whole number"):
        Channel(1).resize(capacity)  # type: ignore[arg-type]


# ------------------------------------------------------------- waiting for room


def full_channel() -> Channel[str]:
    channel: Channel[str] = Channel(1)
    channel.put("a")
    channel.take(1)
    return channel


def test_who_waits_for_room_is_called_at_the_next_release() -> None:
    channel, calls = full_channel(), deque[int]()

    is_waiting = channel.call_when_room(lambda: calls.append(1))

    assert (is_waiting, list(calls)) == (True, [])
    channel.release(1)
    assert list(calls) == [1]


def test_who_asks_while_there_is_room_is_not_called() -> None:
    assert not Channel(1).call_when_room(lambda: None)


def test_who_waits_twice_is_called_once() -> None:
    channel, calls = full_channel(), deque[int]()
    wake = functools.partial(calls.append, 1)
    channel.call_when_room(wake)
    channel.call_when_room(wake)

    channel.resize(5)

    assert list(calls) == [1]


def test_one_release_calls_one_of_many() -> None:
    channel, calls = full_channel(), deque[int]()
    for number in range(3):
        channel.call_when_room(functools.partial(calls.append, number))

    channel.release(1)

    assert list(calls) == [0]


def test_room_that_nobody_used_can_be_passed_on() -> None:
    channel, calls = full_channel(), deque[int]()
    for number in range(2):
        channel.call_when_room(functools.partial(calls.append, number))
    channel.release(1)

    channel.pass_room_on()

    assert list(calls) == [0, 1]


def test_without_room_there_is_nothing_to_pass_on() -> None:
    channel, calls = full_channel(), deque[int]()
    channel.call_when_room(functools.partial(calls.append, 1))

    channel.pass_room_on()

    assert not calls


def test_closing_calls_everybody_who_waits() -> None:
    channel, calls = full_channel(), deque[int]()
    for number in range(3):
        channel.call_when_room(functools.partial(calls.append, number))

    channel.close()

    assert list(calls) == [0, 1, 2]
    assert not channel.call_when_room(lambda: None)


def test_a_wait_for_room_ends_when_it_comes() -> None:
    channel = full_channel()
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(channel.wait_for_room(9)))
    waiter.start()
    wait_until(lambda: len(channel._waiters) == 1)

    channel.release(1)

    waiter.join(5)
    assert answers == [True]


def test_a_wait_for_room_ends_at_its_timeout_and_leaves_nothing_behind() -> None:
    channel = full_channel()

    assert not channel.wait_for_room(0.001)
    assert not channel._waiters


def test_a_wait_for_room_that_is_there_ends_at_once() -> None:
    assert Channel(1).wait_for_room(9)


def test_a_wait_without_end_is_possible() -> None:
    channel = full_channel()
    waiter = threading.Thread(target=lambda: channel.wait_for_room(float("inf")))
    waiter.start()
    wait_until(lambda: len(channel._waiters) == 1)

    channel.close()

    waiter.join(5)
    assert not waiter.is_alive()


class Interrupted(Exception):
    """Raised by a signal handler."""


@pytest.fixture
def interrupts() -> Iterator[threading.Event]:
    """A SIGVTALRM raises, once, if this was set (SIGALRM is pytest-timeout's)."""
    armed = threading.Event()

    def interrupt(*_: object) -> None:
        if armed.is_set():
            armed.clear()
            raise Interrupted

    before = signal.signal(signal.SIGVTALRM, interrupt)
    yield armed
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.fixture
def untraced() -> Iterator[None]:
    """Raised within a lock of coverage's own, an exception would leave it held."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


def test_an_interrupted_wait_leaves_nothing_behind(
    interrupts: threading.Event,
) -> None:
    channel, me = full_channel(), threading.get_ident()
    interrupts.set()

    def interrupt() -> None:
        wait_until(lambda: len(channel._waiters) == 1)
        signal.pthread_kill(me, signal.SIGVTALRM)

    other = threading.Thread(target=interrupt)
    other.start()

    with pytest.raises(Interrupted):
        channel.wait_for_room(30)

    other.join()
    assert not channel._waiters


def test_an_interrupted_wait_hands_its_room_to_the_next() -> None:
    channel, calls = full_channel(), deque[int]()

    class Bed:
        def acquire(self, timeout: float = 0) -> bool:
            if not timeout:
                return True
            channel.call_when_room(lambda: calls.append(1))
            channel.release(1)  # calls us; the exception comes in the same moment
            raise Interrupted

        def release(self) -> None:
            """Wake nobody."""

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("django_gomq.bus.permits.Lock", Bed)
        channel.wait_for_room(9)

    assert list(calls) == [1]


# ------------------------------------------------------------------- lost permits


@pytest.mark.usefixtures("untraced")
def test_permits_lost_by_a_signal_handler_come_back(
    interrupts: threading.Event,
) -> None:
    capacity = 400_000  # more than one publisher puts before it is interrupted
    channel: Channel[int] = Channel(capacity)

    for _ in range(100):
        with pytest.raises(Interrupted):
            interrupts.set()
            # The kernel counts this time in ticks of a few milliseconds.
            signal.setitimer(signal.ITIMER_VIRTUAL, 1e-6)
            while True:
                if channel.try_permit():
                    channel.put_permitted(1)
        channel.release(len(channel.take(capacity)))

    lost = channel.held
    assert lost > 0, "no signal hit the gap"
    assert channel.reconcile(patience=0) == lost
    assert channel.try_permits(capacity + 1) == capacity


def test_a_permit_in_the_hands_of_a_publisher_is_not_lost() -> None:
    channel: Channel[int] = Channel(4)
    channel.try_permit()

    assert channel.reconcile(patience=60) == 0
    channel.put_permitted(1)
    assert channel.reconcile(patience=0) == 0


def test_what_is_missing_and_stays_missing_is_lost() -> None:
    channel: Channel[int] = Channel(4)
    channel.try_permits(3)

    assert channel.reconcile(patience=0.001) == 0
    wait_until(lambda: channel.reconcile(patience=0.001) == 3)

    assert channel.held == 0


def test_permits_without_a_buffer_count_what_is_out() -> None:
    permits = Permits(2)
    permits.try_permits(2)
    permits.hold()

    assert permits.reconcile(patience=0) == 1
    assert permits.held == 1


def test_a_permit_that_was_thought_lost_too_early_is_taken_back() -> None:
    channel: Channel[int] = Channel(4)
    channel.try_permit()
    assert channel.reconcile(patience=0) == 1  # as if the process had stood still

    channel.put_permitted(1)
    channel.reconcile()

    assert channel.held == 1
    assert channel.try_permits(9) == 3


def test_nothing_counts_as_lost_while_permits_come_and_go() -> None:
    channel: Channel[int] = Channel(4)
    channel.try_permit()  # another publisher's each time that we look
    channel.reconcile(patience=0.001)

    never = threading.Event()
    never.wait(0.002)
    channel.put(1)

    assert channel.reconcile(patience=0.001) == 0


def test_a_lost_permit_calls_who_waits_for_it() -> None:
    channel, calls = Channel[int](1), deque[int]()
    channel.try_permit()
    channel.call_when_room(lambda: calls.append(1))

    assert channel.reconcile(patience=0) == 1
    assert list(calls) == [1]


def test_reconciling_while_publishers_race_gives_no_permit_too_many() -> None:
    channel: Channel[int] = Channel(100_000)
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            if channel.try_permit():
                channel.put_permitted(1)

    def consume() -> None:
        while not stop.is_set():
            channel.release(len(channel.take(4000)))

    def reconcile() -> None:
        for _ in range(200):
            channel.reconcile(patience=0.0005)
            threading.Event().wait(0.0005)
        stop.set()

    with fast_switching():
        run_threads(publish, publish, publish, publish, publish, consume, reconcile)

    channel.reconcile(patience=0)
    assert channel.held == len(channel)


# --------------------------------------------------------------------------- fuzz


@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_is_lost_or_doubled_under_many_threads(  # noqa: C901, PLR0915
    batch: int,
) -> None:
    channel: Channel[tuple[int, int]] = Channel(16)
    most, each = 3000, 4
    taken: list[list[tuple[int, int]]] = [[] for _ in range(each)]
    highest: list[int] = [0]
    done = threading.Event()

    def produce(number: int) -> None:
        for index in range(most):
            while not channel.put((number, index), index % 10):
                channel.wait_for_room(5)

    def consume(number: int) -> None:
        mine = taken[number]
        while not done.is_set():
            items = channel.take(batch)
            mine.extend(items)
            highest[0] = max(highest[0], channel.held)
            channel.release(len(items))
            if sum(map(len, taken)) == most * each:
                done.set()

    def resize() -> None:
        for capacity in itertools.cycle((3, 16, 1, 12)):
            if done.wait(0.001):
                break
            channel.resize(capacity)
        channel.resize(16)

    numbers = range(each)
    with fast_switching():
        run_threads(
            *(functools.partial(produce, number) for number in numbers),
            *(functools.partial(consume, number) for number in numbers),
            resize,
        )

    counted = Counter(item for one in taken for item in one)
    assert len(counted) == most * each
    assert set(counted.values()) == {1}
    assert highest[0] <= 16
    assert channel.held == 0
    assert channel.reconcile(patience=0) == 0
    assert channel.try_permits(100) == 16


def test_a_producer_keeps_its_own_order_within_a_priority() -> None:
    channel: Channel[tuple[int, int]] = Channel(16)
    out: list[tuple[int, int]] = []

    def produce(number: int) -> None:
        for index in range(2000):
            while not channel.put((number, index)):
                channel.wait_for_room(5)

    def consume() -> None:
        while len(out) < 4000:
            items = channel.take(5)
            out.extend(items)
            channel.release(len(items))

    with fast_switching():
        run_threads(
            functools.partial(produce, 0), functools.partial(produce, 1), consume
        )

    for number in range(2):
        mine = [index for one, index in out if one == number]
        assert mine == sorted(mine)


class ChannelMachine(RuleBasedStateMachine):
    """The channel beside a model that says the obvious."""

    def __init__(self) -> None:
        super().__init__()
        self.channel: Channel[object] = Channel(4)
        self.capacity = 4
        self.levels: list[list[object]] = [[] for _ in range(10)]
        self.out: list[tuple[object, int]] = []
        self.in_hand = 0
        self.closed = False

    @property
    def held(self) -> int:
        return sum(map(len, self.levels)) + len(self.out) + self.in_hand

    @rule(priority=st.integers(0, 9))
    def put(self, priority: int) -> None:
        item = object()
        expected = self.held < self.capacity
        assert self.channel.put(item, priority) is expected
        if expected:
            self.levels[priority].append(item)

    @rule(wanted=st.integers(1, 4))
    def take_permits(self, wanted: int) -> None:
        expected = max(0, min(wanted, self.capacity - self.held))
        assert self.channel.try_permits(wanted) == expected
        self.in_hand += expected

    @precondition(lambda self: self.in_hand)
    @rule(priority=st.integers(0, 9))
    def put_permitted(self, priority: int) -> None:
        items = [object() for _ in range(self.in_hand)]
        self.channel.put_many_permitted(items, priority)
        self.levels[priority] += items
        self.in_hand = 0

    @precondition(lambda self: self.in_hand)
    @rule()
    def return_permits(self) -> None:
        self.channel.return_permits(self.in_hand)
        self.in_hand = 0

    @precondition(lambda self: self.in_hand)
    @rule()
    def lose_permits(self) -> None:
        assert self.channel.reconcile(patience=0) == self.in_hand
        self.in_hand = 0

    @rule(most=st.integers(1, 6))
    def take(self, most: int) -> None:
        expected = []
        for priority in range(9, -1, -1):
            while self.levels[priority] and len(expected) < most:
                expected.append((self.levels[priority].pop(0), priority))
        assert self.channel.take(most) == [item for item, _ in expected]
        self.out += expected

    @rule(chosen=st.sets(st.integers(0, 9)))
    def take_where(self, chosen: set[int]) -> None:
        wanted = {id(item) for p in chosen for item in self.levels[p][::2]}
        taken = self.channel.take_where(lambda item: id(item) in wanted)
        assert {id(item) for item in taken} == wanted
        for priority, level in enumerate(self.levels):
            self.out += [(one, priority) for one in level if id(one) in wanted]
            self.levels[priority] = [one for one in level if id(one) not in wanted]

    @precondition(lambda self: self.out)
    @rule()
    def put_back(self) -> None:
        item, priority = self.out.pop()
        self.channel.put_back([(item, priority)])
        self.levels[priority].insert(0, item)

    @precondition(lambda self: self.out)
    @rule()
    def come_again(self) -> None:
        item, priority = self.out.pop()
        self.channel.put_again(item, priority)
        self.levels[priority].append(item)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.out)))
        del self.out[:count]
        self.channel.release(count)

    @rule(up_to=st.integers(0, 9))
    def evict(self, up_to: int) -> None:
        expected = next((one for one in self.levels[: up_to + 1] if one), None)
        victim = self.channel.evict_oldest(up_to)
        assert victim is (expected[0] if expected else None)
        if expected:
            del expected[0]
            self.in_hand += 1

    @rule(capacity=st.integers(1, 8))
    def resize(self, capacity: int) -> None:
        self.channel.resize(capacity)
        if not self.closed:
            self.capacity = capacity

    @precondition(lambda self: self.held > 3)
    @rule()
    def close(self) -> None:
        self.channel.close()
        self.closed, self.capacity = True, 0

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.channel.held == self.held
        assert self.channel.capacity == self.capacity
        assert len(self.channel) == sum(map(len, self.levels))
        assert bool(self.channel) is any(self.levels)
        assert self.channel.has_room is (self.held < self.capacity)


ChannelMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
TestTheChannelAgreesWithItsModel = ChannelMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 9), st.integers())), st.integers(1, 9))
@settings(deadline=None)
def test_draining_in_batches_sorts_by_priority_and_arrival(
    items: list[tuple[int, int]], batch: int
) -> None:
    channel: Channel[tuple[int, int]] = Channel(max(1, len(items)))
    for item in items:
        channel.put(item, item[0])

    drained: list[tuple[int, int]] = []
    while channel:
        drained += channel.take(batch)

    assert drained == sorted(items, key=lambda item: -item[0])
