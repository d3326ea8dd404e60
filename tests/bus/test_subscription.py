"""One consumer at one broker: what it wants, takes in, gives away, and still holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.channels import (
    channel,
    key_order,
    permits,
)
from django_gomq.bus.channels import (
    subscription as module,
)
from django_gomq.bus.channels.spilling import SpillingSubscription
from django_gomq.bus.channels.subscription import Subscription, shared_iterator
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import Chunk, Delivery, DropReason
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.timers import Timers
from tests.bus.interleaving import interleaved
from tests.bus.waiting import LONG, run_threads


def make(
    types: str = "a.b", timers: Timers | None = None, **options: Any
) -> Subscription:
    consumer = make_consumer([types], print, name="c", options=options)
    return Subscription("default", consumer, hooks=Hooks(), timers=timers)


def delivery(key: str | None = None, event: str = "a.b", priority: int = 5) -> Delivery:
    return Delivery(Message(event, key=key, priority=priority), 0.0)


def deliveries(count: int) -> list[Delivery]:
    return [delivery() for _ in range(count)]


def take(subscription: Subscription, count: int) -> list[Delivery]:
    """Take deliveries, as a thread that has begun to handle them."""
    taken = list(subscription.take(count))
    subscription.begin(len(taken))
    return taken


def finish(subscription: Subscription, ended: list[Delivery]) -> None:
    subscription.end(len(ended))
    subscription.finish(ended, len(ended))


# ------------------------------------------------------------------ what is wanted


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2),
        ({"concurrency": 4}, 8),
        ({"batch": 50, "capacity": 1000}, 100),
        ({"batch": 50, "capacity": 60}, 60),
        ({"capacity": 1}, 1),
    ],
)
def test_before_anything_is_known_two_turns_of_work_are_wanted(
    options: dict[str, Any], expected: int
) -> None:
    assert make(**options).wanted() == expected


@pytest.mark.parametrize(
    ("mean_seconds", "options", "expected"),
    [
        (0.01, {}, 100),  # a second of work
        (0.01, {"concurrency": 4}, 400),
        (0.5, {"batch": 20}, 40),
        (60.0, {"concurrency": 3}, 6),  # a slow one still has its next at hand
        (1e-6, {"capacity": 500}, 500),  # a fast one no more than it has room for
    ],
)
def test_about_a_second_of_work_is_wanted(
    mean_seconds: float, options: dict[str, Any], expected: int
) -> None:
    subscription = make(**options)

    subscription.mean_seconds = mean_seconds

    assert subscription.wanted() == expected


def test_nothing_is_wanted_before_half_of_it_is_gone() -> None:
    subscription = make(capacity=10)
    subscription.mean_seconds = 1e-6
    subscription.accept(deliveries(10))

    wanted = []
    for _ in range(10):
        finish(subscription, take(subscription, 1))
        wanted.append(subscription.wanted())

    assert wanted == [0, 0, 0, 0, 5, 6, 7, 8, 9, 10]


def test_what_is_in_the_handler_leaves_its_place_to_the_next_but_not_its_room() -> None:
    subscription = make(capacity=10)
    subscription.mean_seconds = 1e-6
    subscription.accept(deliveries(10))

    taken = take(subscription, 10)
    assert subscription.wanted() == 0  # there is no room
    finish(subscription, taken[:4])

    assert subscription.wanted() == 4


def test_retries_and_outcomes_that_wait_are_no_work_at_hand() -> None:
    subscription = make(capacity=100)
    subscription.mean_seconds = 0.1
    subscription.accept(deliveries(10))
    taken = take(subscription, 10)

    for each in taken[:5]:
        subscription.end(1)
        subscription.retry(each, 60)
    with subscription.counts.lock:
        subscription.in_flight -= 5
        subscription.unsettled += 5

    assert subscription.wanted() == 10


def test_a_paused_consumer_wants_nothing_and_then_tells_its_reader() -> None:
    subscription, told = make(), list[int]()
    subscription.set_paused(True)
    subscription.on_wanted = lambda: told.append(1)
    paused = subscription.wanted()

    subscription.set_paused(False)

    assert (paused, told) == (0, [1])


@pytest.mark.parametrize("end", ["finish", "take"])
def test_a_reader_that_waits_is_told_once_when_enough_is_gone(end: str) -> None:
    subscription, told = make(capacity=4), list[int]()
    subscription.mean_seconds = 1e-6
    subscription.accept(deliveries(4))
    subscription.on_wanted = lambda: told.append(1)

    first = take(subscription, 1)
    finish(subscription, first)
    too_early = list(told)
    others = take(subscription, 3)
    if end == "finish":
        finish(subscription, others)
    else:
        subscription.take(1)

    assert (too_early, told) == ([], [1])
    assert subscription.on_wanted is None


# ------------------------------------------------------------------ what comes in


KINDS = st.tuples(st.sampled_from(["a.b", "a.c"]), st.sampled_from([1, 5, 9]))


@given(st.lists(KINDS, max_size=12), st.integers(1, 12))
@settings(deadline=None)
def test_what_is_accepted_is_taken_by_priority_and_the_rest_is_returned(
    kinds: list[tuple[str, int]], capacity: int
) -> None:
    subscription = make("a.*", capacity=capacity)
    offered = [delivery(event=event, priority=priority) for event, priority in kinds]

    rest = subscription.accept(offered)

    fit = offered[:capacity]
    assert list(rest) == offered[capacity:]
    assert list(subscription.take(99)) == sorted(
        fit, key=lambda each: -each.message.priority
    )
    stats = subscription.stats()
    assert stats.dispatched == {
        event: sum(each.message.type == event for each in fit)
        for event in {each.message.type for each in fit}
    }
    assert (stats.depth, stats.dropped) == (len(fit), {})


def test_neighbours_of_one_kind_are_accepted_as_one_chunk() -> None:
    subscription, offered = make(), deliveries(5)

    subscription.accept(offered)

    taken = subscription.take(5)
    assert type(taken) is Chunk
    assert list(taken) == offered


def test_work_is_announced_once_and_only_where_some_came_in() -> None:
    subscription, told = make(capacity=2), list[int]()
    subscription.on_work = lambda: told.append(1)

    subscription.accept(deliveries(2))
    subscription.accept(deliveries(2))

    assert told == [1]


# ------------------------------------------------------------------ what is given away


@pytest.fixture(params=[False, True], ids=["plain", "ordered"])
def ordered(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def test_what_was_given_to_somebody_else_is_forgotten_wherever_it_waits(
    ordered: bool,
) -> None:
    subscription, told = make(ordered_by_key=ordered), list[int]()
    handled, scheduled, unstarted, other, behind, waiting = (
        delivery(key) for key in ("h", "s", "u", "o", "h", "w")
    )
    subscription.accept([handled, scheduled, unstarted, other])
    taken = take(subscription, 2)
    subscription.end(1)
    subscription.retry(scheduled, 60)
    slice_of_another = shared_iterator(list(subscription.take(2)))
    subscription.unstarted[get_ident()] = slice_of_another
    subscription.accept([behind, waiting])
    subscription.on_work = lambda: told.append(1)
    lost = {handled, scheduled, unstarted, behind, waiting}

    gone = subscription.withdraw(lost.__contains__)

    assert taken == [handled, scheduled]
    assert set(gone) == lost - {handled}  # that one is left to end by itself
    assert list(slice_of_another) == []
    stats = subscription.stats()
    assert (stats.handed_back, stats.depth, stats.scheduled) == (4, 1, 0)
    assert (stats.in_flight, stats.unaccounted) == (1, 0)
    assert told == [1]  # who comes for what was put back
    assert list(subscription.take(9)) == [other]
    finish(subscription, [handled])
    subscription.finish([other], 1)
    assert (subscription.channel.held, subscription.busy_keys) == (0, frozenset())


def test_where_nothing_is_left_to_do_nobody_is_woken() -> None:
    subscription, told = make(), list[int]()
    subscription.accept(deliveries(3))
    subscription.on_work = lambda: told.append(1)

    assert len(subscription.withdraw(lambda _: True)) == 3

    assert (told, subscription.channel.held) == ([], 0)


@pytest.mark.parametrize("state", ["retrying", "admitted", "unstarted"])
def test_a_key_of_what_is_withdrawn_goes_to_the_next_of_it(state: str) -> None:
    subscription = make(ordered_by_key=True)
    first, second = delivery("k"), delivery("k")
    subscription.accept([first])
    taken = list(subscription.take(1))
    match state:
        case "retrying":
            subscription.retry(first, 60)
        case "admitted":
            subscription.put_back(taken)
        case _:
            subscription.unstarted[1] = shared_iterator(taken)
    subscription.accept([second])
    assert subscription.busy_keys == {"k"}

    assert subscription.withdraw(lambda each: each is first) == [first]

    assert list(subscription.take(9)) == [second]
    subscription.finish([second], 1)
    assert (subscription.channel.held, subscription.busy_keys) == (0, frozenset())


def test_a_stop_takes_everything_that_was_not_started(ordered: bool) -> None:
    subscription = make(ordered_by_key=ordered)
    held = [delivery(key) for key in ("a", "b", "c", "a", "d")]
    subscription.accept(held[:3])
    subscription.retry(subscription.take(1)[0], 60)
    subscription.unstarted[1] = shared_iterator(list(subscription.take(1)))
    subscription.accept(held[3:])

    assert set(subscription.take_all()) == set(held)
    assert subscription.take_all() == []
    assert subscription.busy_keys == frozenset()


# ------------------------------------------------------------------ too late


def give_up(subscription: Subscription, given_up: list[Delivery]) -> None:
    given_up += subscription.take_all()


LATE: dict[str, Callable[[Subscription, Delivery], object]] = {
    "put back": lambda subscription, each: subscription.put_back([each]),
    "retried": lambda subscription, each: subscription.retry(each, 60),
    "accepted": lambda subscription, each: subscription.accept([delivery("late")]),
}


@pytest.mark.parametrize("how", LATE)
def test_what_comes_after_a_stop_is_found_by_it(how: str, ordered: bool) -> None:
    subscription, given_up = make(ordered_by_key=ordered), list[Delivery]()
    subscription.accept([delivery("k")])
    (taken,) = subscription.take(1)
    subscription.on_late = partial(give_up, subscription, given_up)

    LATE[how](subscription, taken)

    assert len(given_up) == 1
    assert not subscription.has_work
    assert subscription.scheduled() == 0


class HandTimers(Timers):
    """Calls nobody; the test does."""

    def __init__(self) -> None:
        super().__init__(print)
        self.calls: list[Callable[[], object]] = []

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        self.calls.append(call)


def test_a_retry_whose_time_comes_in_the_midst_of_a_stop_is_found_by_it(
    ordered: bool,
) -> None:
    timers, given_up = HandTimers(), list[Delivery]()
    subscription = make(ordered_by_key=ordered, timers=timers)
    subscription.accept([delivery("k")])
    (taken,) = subscription.take(1)
    subscription.retry(taken, 0)
    subscription.on_late = partial(give_up, subscription, given_up)

    timers.calls[0]()

    assert given_up == [taken]


# ------------------------------------------------------------------ races


class Race:
    """Threads that read, handle, retry and withdraw; each delivery ends once."""

    total = 3000

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.accepted: list[Delivery] = []
        self.ended: list[Delivery] = []
        self.withdrawn: list[Delivery] = []
        self._number = itertools.count().__next__

    @property
    def is_read(self) -> bool:
        return len(self.accepted) >= self.total

    def is_over(self) -> bool:
        ended = len(self.ended) + len(self.withdrawn)
        return self.is_read and ended == len(self.accepted)

    def read(self) -> None:
        while not self.is_read:
            fetched = [delivery(f"k{self._number() % 5}") for _ in range(7)]
            rest = self.subscription.accept(fetched)
            self.accepted.extend(fetched[: len(fetched) - len(rest)])

    def handle(self) -> None:
        me, subscription = get_ident(), self.subscription
        while not self.is_over():
            hand = shared_iterator(list(subscription.take(5)))
            subscription.unstarted[me] = hand
            for each in itertools.islice(hand, 3):
                self._end(each)
            del subscription.unstarted[me]
            left = list(hand)
            if left:
                subscription.put_back(left)

    def _end(self, each: Delivery) -> None:
        self.subscription.begin(1)
        self.subscription.end(1)
        if self._number() % 4 == 0 and each.attempt < 3:
            again = Delivery(each.message, 0.0, each.attempt + 1)
            self.subscription.retry(again, 0.0001)
        else:
            self.ended.append(each)
            self.subscription.finish([each], 1)

    def withdraw(self) -> None:
        while not self.is_read:
            lost = self.subscription.withdraw(lambda _: self._number() % 9 == 0)
            self.withdrawn.extend(lost)


@pytest.mark.timeout(3 * LONG)
def test_races_of_all_that_moves_deliveries_lose_no_permit_and_no_key(
    ordered: bool,
) -> None:
    timers = Timers(print)
    subscription = make(ordered_by_key=ordered, capacity=40, timers=timers)
    race = Race(subscription)

    with interleaved(module, channel, key_order, permits, chance=0.005):
        timers.start()
        threads = (race.read, race.handle, race.handle, race.withdraw)
        run_threads(*threads, seconds=2 * LONG)
    timers.stop()

    ended = [each.message.id for each in [*race.ended, *race.withdrawn]]
    assert sorted(ended) == sorted(each.message.id for each in race.accepted)
    stats = subscription.stats()
    assert (subscription.channel.held, stats.depth, stats.scheduled) == (0, 0, 0)
    assert (subscription.busy_keys, subscription.has_work) == (frozenset(), False)
    assert stats.handed_back == len(race.withdrawn)
    assert subscription.keys is None or subscription.keys.blocked == 0


# ------------------------------------------------------------------ leases


def test_nothing_starts_after_the_lease_until_it_is_kept_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, told = [100.0], list[int]()
    monkeypatch.setattr(Clock, "monotonic", lambda: now[0])
    subscription = make(concurrency=2)
    subscription.accept(deliveries(3))
    subscription.set_lease(110.0)
    subscription.on_work = lambda: told.append(1)

    assert len(take(subscription, 1)) == 1
    now[0] = 110.0
    assert take(subscription, 1) == []
    subscription.set_lease(120.0)

    assert len(told) == 2
    assert len(take(subscription, 2)) == 2


# ------------------------------------------------------------------ spilling


def test_what_spills_no_more_drops_what_a_stop_leaves() -> None:
    options: dict[str, Any] = {"overflow": "spill"}
    consumer = make_consumer(["a.b"], print, name="c", options=options)
    subscription = SpillingSubscription(
        "default", consumer, hooks=Hooks(), on_spill=lambda: None
    )
    subscription.offer(deliveries(2))
    subscription.end_spilling()

    subscription.miss(deliveries(3), DropReason.SHUTDOWN)
    subscription.abandon(subscription.take_all())

    assert subscription.counts.dropped == {("a.b", DropReason.SHUTDOWN): 5}
    assert subscription.spilled == 0
