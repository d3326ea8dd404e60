"""The buffer of a consumer, which holds runs; see test_buffers for what all promise."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_gomq.bus.channels import channel as module
from django_gomq.bus.channels import permits
from django_gomq.bus.channels.channel import Channel
from django_gomq.bus.delivery import Chunk, Delivery, join
from django_gomq.bus.message import Message
from tests.bus.interleaving import interleaved
from tests.bus.machines import for_long
from tests.bus.waiting import LONG, run_threads


def channel_of(*runs: Sequence[Any], capacity: int = 100) -> Channel[Any]:
    """Return a channel that holds these runs, all of the usual priority."""
    channel: Channel[Any] = Channel(capacity)
    for run in runs:
        assert channel.try_permits(len(run)) == len(run)
        channel.put_permitted(run)
    return channel


def test_a_run_is_put_as_one_and_counts_as_its_items() -> None:
    channel = channel_of("abc", "de")

    assert (len(channel), bool(channel), channel.held) == (5, True, 5)


def test_a_whole_run_is_taken_as_it_was_put() -> None:
    run = ["a", "b"]
    channel = channel_of(run)

    assert channel.take(9) is run
    assert (len(channel), bool(channel), channel.held) == (0, False, 2)


def test_a_part_of_a_run_is_taken_and_the_rest_is_next() -> None:
    run = ["a", "b", "c", "d"]
    channel = channel_of(run)

    parts = [channel.take(3), channel.take(3)]

    assert parts == [["a", "b", "c"], ["d"]]
    assert run == ["a", "b", "c", "d"]


def test_several_runs_are_taken_as_one() -> None:
    channel = channel_of(["a", "b"], ["c"], ["d", "e"])

    assert channel.take(4) == ["a", "b", "c", "d"]
    assert channel.take(4) == ["e"]


def test_the_rest_of_a_run_comes_before_the_runs_behind_it() -> None:
    channel = channel_of(["a", "b", "c"], ["d"])

    parts = [list(channel.take(1)), list(channel.take(1)), list(channel.take(2))]

    assert parts == [["a"], ["b"], ["c", "d"]]


def test_several_runs_become_one_in_the_way_that_was_asked_for() -> None:
    channel: Channel[Any] = Channel(9, join=lambda runs: ["joined", *runs])
    for item in "abc":
        channel.put(item)

    assert channel.take(2) == ["joined", ("a",), ("b",)]
    assert channel.take(2) == ("c",)


def test_a_higher_priority_leaves_before_the_rest_of_a_run() -> None:
    channel = channel_of(["a", "b", "c"])
    channel.take(1)

    channel.put("urgent", 9)

    assert list(channel.take(9)) == ["urgent", "b", "c"]


def test_items_put_back_are_the_next_in_their_order() -> None:
    channel = channel_of(["a", "b", "c"])
    taken = channel.take(2)

    channel.put_back([(item, 5) for item in taken])

    assert (len(channel), channel.held) == (3, 3)
    assert list(channel.take(3)) == ["a", "b", "c"]


def test_items_of_several_priorities_go_back_to_their_own() -> None:
    channel: Channel[str] = Channel(9)
    for item, priority in (("low", 1), ("top", 9), ("top2", 9)):
        channel.put(item, priority)
    channel.take(9)

    channel.put_back([("top", 9), ("top2", 9), ("low", 1)])

    assert list(channel.take(9)) == ["top", "top2", "low"]


def test_an_item_that_comes_again_waits_behind_the_runs_of_its_equals() -> None:
    channel = channel_of(["a", "b", "c"])
    channel.take(1)

    channel.put_again("a", 5)

    assert list(channel.take(9)) == ["b", "c", "a"]


# ------------------------------------------------------------------------ eviction


def test_eviction_takes_the_oldest_of_the_lowest_priority() -> None:
    channel: Channel[str] = Channel(5)
    for item, priority in (("mid", 5), ("low1", 1), ("low2", 1)):
        channel.put(item, priority)

    assert channel.evict_oldest(up_to=5) == "low1"


def test_eviction_takes_one_item_out_of_a_run_and_leaves_the_run_alone() -> None:
    run = ["a", "b", "c"]
    channel = channel_of(run)

    victims = [channel.evict_oldest(up_to=5) for _ in range(2)]

    assert victims == ["a", "b"]
    assert run == ["a", "b", "c"]
    assert (len(channel), list(channel.take(9))) == (1, ["c"])


def test_eviction_spares_what_is_more_urgent_than_the_newcomer() -> None:
    channel: Channel[str] = Channel(5)
    channel.put("urgent", 9)

    assert channel.evict_oldest(up_to=5) is None
    assert len(channel) == 1


def test_an_evicted_item_leaves_its_room_to_the_newcomer() -> None:
    channel = channel_of(["old"], capacity=1)

    channel.evict_oldest(up_to=5)
    channel.put_permitted(["new"], 5)

    assert channel.held == 1
    assert list(channel.take(2)) == ["new"]


# ------------------------------------------------------------- looking and choosing


def test_chosen_items_leave_and_the_others_keep_their_order() -> None:
    run = [0, 1, 2, 3]
    channel = channel_of(run, [4, 5])

    odd = channel.take_where(lambda number: number % 2 == 1)

    assert odd == [1, 3, 5]
    assert run == [0, 1, 2, 3]
    assert len(channel) == 3
    assert list(channel.take(9)) == [0, 2, 4]
    assert channel.held == 6


def test_all_may_be_chosen() -> None:
    channel = channel_of([0, 1], [2])
    channel.put(3, 9)

    assert channel.take_where(lambda _: True) == [3, 0, 1, 2]
    assert (len(channel), channel.firsts(), channel.held) == (0, [], 4)


def test_the_first_of_each_priority_can_be_looked_at() -> None:
    channel: Channel[str] = Channel(9)
    for item, priority in (("a", 1), ("b", 1), ("c", 7)):
        channel.put(item, priority)

    assert channel.firsts() == ["c", "a"]
    assert len(channel) == 3


def test_the_first_of_a_run_whose_head_was_taken_is_what_comes_next() -> None:
    channel = channel_of(["a", "b"])
    channel.take(1)

    assert channel.firsts() == ["b"]


# --------------------------------------------------------------------- shared runs


def deliveries(count: int) -> Chunk:
    return Chunk(
        Delivery(Message("a.b", b"%d" % number), 0.0) for number in range(count)
    )


CHANNELS = 5
OPS = ["take", "put_back", "put_again", "evict", "take_where", "firsts"]


def disturb(channel: Channel[Delivery], op: str, count: int) -> list[Delivery]:
    """Do this to a channel; return what left it for good."""
    match op:
        case "take":
            return list(channel.take(count))
        case "put_back":
            channel.put_back([(one, 5) for one in channel.take(count)])
        case "put_again":
            for one in channel.take(1):
                channel.put_again(one, 5)
        case "evict":
            victim = channel.evict_oldest(up_to=9)
            return [] if victim is None else [victim]
        case "take_where":
            dice = itertools.count()
            return channel.take_where(lambda _: next(dice) % 4 == count % 4)
        case "firsts":
            channel.firsts()
    return []


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(
        st.tuples(
            st.integers(0, CHANNELS - 1), st.sampled_from(OPS), st.integers(1, 12)
        ),
        max_size=40,
    ),
)
@settings(deadline=None)
def test_runs_that_channels_share_are_never_changed(
    sizes: list[int], steps: list[tuple[int, str, int]]
) -> None:
    runs = [deliveries(size) for size in sizes]
    before = [list(run) for run in runs]
    channels: list[Channel[Delivery]] = [Channel(100, join) for _ in range(CHANNELS)]
    for channel in channels:
        for run in runs:
            channel.try_permits(len(run))
            channel.put_permitted(run)

    left: list[list[Delivery]] = [[] for _ in channels]
    for number, op, count in steps:
        left[number] += disturb(channels[number], op, count)

    for channel, gone in zip(channels, left, strict=True):
        found = Counter([*gone, *channel.take(1000)])
        assert found == Counter(one for run in before for one in run)
    assert [list(run) for run in runs] == before


def test_a_run_that_threads_of_five_channels_share_is_never_changed() -> None:
    runs = [deliveries(40) for _ in range(30)]
    before = [list(run) for run in runs]
    channels: list[Channel[Delivery]] = [Channel(2000, join) for _ in range(CHANNELS)]
    taken: list[list[Delivery]] = [[] for _ in range(2 * CHANNELS)]
    done = threading.Event()

    def put() -> None:
        for run in runs:
            for channel in channels:
                channel.try_permits(len(run))
                channel.put_permitted(run)
        done.set()

    def take(number: int) -> None:
        channel, mine, step = channels[number % CHANNELS], taken[number], 0
        while not done.is_set() or channel:
            op, step = OPS[step % len(OPS)], step + 1
            mine += disturb(channel, op, step % 13)
            # Shared by all: each finds it out for itself, and finds the same.
            assert runs[step % 30].available == [0.0] * 40

    with interleaved(module, permits, chance=0.005):
        run_threads(put, *(functools.partial(take, n) for n in range(2 * CHANNELS)))

    assert [list(run) for run in runs] == before
    for number in range(CHANNELS):
        found = Counter(taken[number] + taken[number + CHANNELS])
        assert found == Counter(one for run in before for one in run)
        assert not channels[number]


@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_is_lost_or_doubled_by_racing_threads(  # noqa: C901, PLR0915
    batch: int,
) -> None:
    channel: Channel[tuple[int, int]] = Channel(16)
    most, each = 1000, 4
    taken: list[list[tuple[int, int]]] = [[] for _ in range(each)]
    done = threading.Event()

    def produce(number: int) -> None:
        index = 0
        while index < most:
            room = channel.try_permits(min(3, most - index))
            if room:
                run = [(number, index + one) for one in range(room)]
                channel.put_permitted(run, number)
                index += room
            else:
                channel.wait_for_room(LONG)

    def consume(number: int) -> None:
        mine = taken[number]
        while not done.is_set():
            items = channel.take(batch)
            assert channel.held <= 16
            if len(items) > 1 and not len(mine) % 5:  # some are not started
                channel.put_back([(one, one[0]) for one in items[1:]])
                items = items[:1]
            mine.extend(items)
            channel.release(len(items))
            if sum(map(len, taken)) == most * each:
                done.set()

    def resize() -> None:
        step = 0
        while not done.wait(0.001):
            channel.resize((3, 16, 1, 12)[step % 4])
            step += 1
        channel.resize(16)

    with interleaved(module, permits, chance=0.005):
        run_threads(
            *(functools.partial(produce, number) for number in range(each)),
            *(functools.partial(consume, number) for number in range(each)),
            resize,
        )

    counted = Counter(item for one in taken for item in one)
    assert len(counted) == most * each
    assert set(counted.values()) == {1}
    assert (channel.held, len(channel), channel.room) == (0, 0, 16)


PRIORITY = st.sampled_from([0, 5, 5, 5, 9])  # so few that runs lie behind one another


class ChannelMachine(RuleBasedStateMachine):
    """The channel beside a model that says the obvious."""

    def __init__(self) -> None:
        super().__init__()
        self.channel: Channel[object] = Channel(8)
        self.capacity = 8
        self.levels: list[list[object]] = [[] for _ in range(10)]
        self.out: list[tuple[object, int]] = []
        self.in_hand = 0
        self.closed = False
        self.runs: list[tuple[Sequence[object], list[object]]] = []
        """Each run that was put, and what was in it then."""

    @property
    def held(self) -> int:
        return sum(map(len, self.levels)) + len(self.out) + self.in_hand

    @rule(priority=PRIORITY)
    def put(self, priority: int) -> None:
        item = object()
        expected = self.held < self.capacity
        assert self.channel.put(item, priority) is expected
        if expected:
            self.levels[priority].append(item)

    @rule(wanted=st.integers(0, 6))
    def take_permits(self, wanted: int) -> None:
        expected = max(0, min(wanted, self.capacity - self.held))
        assert self.channel.try_permits(wanted) == expected
        self.in_hand += expected

    @precondition(lambda self: self.in_hand)
    @rule(priority=PRIORITY, is_tuple=st.booleans())
    def put_chunk(self, priority: int, *, is_tuple: bool) -> None:
        items = [object() for _ in range(self.in_hand)]
        run = tuple(items) if is_tuple else items
        self.channel.put_permitted(run, priority)
        self.runs.append((run, list(items)))
        self.levels[priority] += items
        self.in_hand = 0

    @precondition(lambda self: self.in_hand)
    @rule()
    def return_permits(self) -> None:
        self.channel.return_permits(self.in_hand)
        self.in_hand = 0

    @rule(most=st.integers(0, 9))
    def take(self, most: int) -> None:
        expected = []
        for priority in range(9, -1, -1):
            while self.levels[priority] and len(expected) < most:
                expected.append((self.levels[priority].pop(0), priority))
        assert list(self.channel.take(most)) == [item for item, _ in expected]
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
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.out)))
        back, self.out = self.out[:count], self.out[count:]
        self.channel.put_back(back)
        for item, priority in reversed(back):
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

    @rule(capacity=st.integers(1, 12))
    def resize(self, capacity: int) -> None:
        self.channel.resize(capacity)
        if not self.closed:
            self.capacity = capacity

    @precondition(lambda self: self.held > 6)
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
        assert self.channel.room == max(0, self.capacity - self.held)
        assert self.channel.has_room is (self.held < self.capacity)
        firsts = [level[0] for level in reversed(self.levels) if level]
        assert self.channel.firsts() == firsts

    @invariant()
    def leaves_every_run_as_it_was_put(self) -> None:
        assert all(list(run) == items for run, items in self.runs)


ChannelMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
TestTheChannelAgreesWithItsModel = ChannelMachine.TestCase
TestTheChannelAgreesForLong = for_long(ChannelMachine)
