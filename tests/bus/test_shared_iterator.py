"""The messages that a thread has taken, while another one takes the rest of them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from django_gomq.bus.channels import subscription as module
from django_gomq.bus.channels.subscription import (
    choose_shared_iterator,
    shared_iterator,
)
from django_gomq.bus.delivery import Chunk, Delivery
from django_gomq.bus.message import Message
from tests.bus.interleaving import interleaved
from tests.bus.waiting import run_threads

Take = Callable[[Sequence[Any]], Iterator[Any]]


@pytest.fixture(params=[True, False], ids=["with the lock", "without"])
def take(request: pytest.FixtureRequest) -> Take:
    made: Take = choose_shared_iterator(request.param)
    return made


def test_a_hand_is_worked_off_in_order(take: Take) -> None:
    assert list(take([1, 2, 3])) == [1, 2, 3]


def test_what_was_started_is_not_among_the_rest(take: Take) -> None:
    hand = take("abc")
    first = next(hand)

    rest = list(hand)

    assert (first, rest) == ("a", ["b", "c"])


def test_a_hand_whose_rest_was_taken_is_empty(take: Take) -> None:
    hand = take([1, 2])
    list(hand)

    assert next(hand, None) is None
    assert list(hand) == []


def test_an_empty_hand_has_nothing(take: Take) -> None:
    assert list(take([])) == []


def test_what_is_taken_in_hand_stays_as_it_was(take: Take) -> None:
    run = Chunk(Delivery(Message("a.b"), 0.0) for _ in range(3))
    before = list(run)

    worked = list(take(run))

    assert worked == before
    assert list(run) == before


def test_one_that_stops_halfway_leaves_the_rest(take: Take) -> None:
    hand = take(range(10))

    for number in hand:
        if number == 4:
            break

    assert list(hand) == [5, 6, 7, 8, 9]


def test_under_the_interpreter_lock_the_list_itself_will_do() -> None:
    assert choose_shared_iterator(True) is iter
    assert choose_shared_iterator(False) is not iter
    assert list(shared_iterator([1, 2])) == [1, 2]


def take_rest(hand: Iterator[int], loot: list[int]) -> None:
    loot += list(hand)  # in one go, as a slice that is put back


def take_singly(hand: Iterator[int], loot: list[int]) -> None:
    loot += [number for number in hand]  # noqa: C416 - as a stop does


@pytest.mark.parametrize(
    "thieves", [[take_rest], [take_singly], [take_singly, take_rest, take_singly]]
)
def test_owner_and_thieves_share_all_and_nothing_twice(
    take: Take, thieves: list[Callable[[Iterator[int], list[int]], None]]
) -> None:
    size, shared = 2000, 0

    def one_round(until: int) -> bool:
        hand, mine = take(range(size)), list[int]()
        loots: list[list[int]] = [[] for _ in thieves]

        def own() -> None:
            for number in hand:
                mine.append(number)

        def steal(number: int) -> None:
            while len(mine) < until:
                pass  # asleep, it would be too late
            thieves[number](hand, loots[number])

        run_threads(
            own, *(functools.partial(steal, number) for number in range(len(thieves)))
        )

        found = mine + [number for loot in loots for number in loot]
        assert sorted(found) == list(range(size)), "one was lost, or had twice"
        assert mine == sorted(mine)
        assert all(loot == sorted(loot) for loot in loots)
        return any(loots)

    with interleaved(module, chance=0.005):
        for number in itertools.count():
            shared += one_round(1 + 50 * (number % 30))
            if number >= 30 and shared >= 3:
                break
            assert number < 500, "nobody ever stole anything"
