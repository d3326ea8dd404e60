from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from django_gomq.bus.ready import ReadyList
from tests.bus.waiting import LONG, fast_switching, run_threads, wait_until


@pytest.fixture
def ready() -> ReadyList[int]:
    return ReadyList()


def sleep_with(
    ready: ReadyList[int], sleepers: int, work: Callable[[], object]
) -> list[int | None]:
    """Run ``work`` once that many threads sleep; return the item that each got."""
    got: deque[int | None] = deque()
    threads = [
        threading.Thread(target=lambda: got.append(ready.next()), daemon=True)
        for _ in range(sleepers)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(ready._beds) == sleepers)
    work()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads), "a sleeper was not woken"
    return sorted(got, key=str)


def test_items_come_in_the_order_they_were_added(ready: ReadyList[int]) -> None:
    for number in range(5):
        ready.add(number)

    assert [ready.next() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_its_length_is_what_waits(ready: ReadyList[int]) -> None:
    ready.add(1)
    ready.add(2)
    ready.next()

    assert len(ready) == 1


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_nothing_comes_in_time(ready: ReadyList[int], timeout: float) -> None:
    assert ready.next(timeout) is None


def test_what_is_there_comes_without_a_wait(ready: ReadyList[int]) -> None:
    ready.add(1)

    assert ready.next(0) == 1


def test_who_waited_in_vain_is_not_woken_later(ready: ReadyList[int]) -> None:
    ready.next(0.001)

    assert not ready._beds


def test_an_added_item_wakes_a_sleeper(ready: ReadyList[int]) -> None:
    assert sleep_with(ready, 1, lambda: ready.add(7)) == [7]


def test_every_item_is_fetched_while_sleepers_remain(ready: ReadyList[int]) -> None:
    def work() -> None:
        for number in range(4):
            ready.add(number)

    assert sleep_with(ready, 4, work) == [0, 1, 2, 3]


def test_a_woken_thread_wakes_the_next_while_more_waits(ready: ReadyList[int]) -> None:
    def work() -> None:
        ready._items.extend([1, 2])  # unheard
        ready.add(3)

    assert sleep_with(ready, 3, work) == [1, 2, 3]


def test_closing_wakes_all_sleepers(ready: ReadyList[int]) -> None:
    assert sleep_with(ready, 3, ready.close) == [None, None, None]


def test_what_is_left_at_the_close_is_handed_out(ready: ReadyList[int]) -> None:
    ready.add(1)

    ready.close()

    assert [ready.next(), ready.next(), ready.next()] == [1, None, None]


def test_what_is_added_while_somebody_lies_down_is_seen(ready: ReadyList[int]) -> None:
    class Beds(deque[Any]):
        def append(self, bed: Any) -> None:
            super().append(bed)
            ready._items.append(7)  # by one who looked for sleepers too early

    ready._beds = Beds()

    assert ready.next() == 7


def test_a_close_while_somebody_lies_down_is_seen(ready: ReadyList[int]) -> None:
    class Beds(deque[Any]):
        def append(self, bed: Any) -> None:
            super().append(bed)
            ready.closed = True

    ready._beds = Beds()

    assert ready.next() is None


def test_a_sleeper_that_got_up_meanwhile_is_no_trouble(ready: ReadyList[int]) -> None:
    class Beds(deque[Any]):
        def __bool__(self) -> bool:
            return True  # there was one a moment ago

    ready._beds = Beds()

    ready.add(7)

    assert ready.next() == 7


def test_racing_threads_hand_over_each_item_once(ready: ReadyList[int]) -> None:
    got: deque[int] = deque()

    def fetch() -> None:
        while (item := ready.next()) is not None:
            got.append(item)
            if len(got) == 3000:
                ready.close()

    def add(first: int) -> Callable[[], None]:
        def add_all() -> None:
            for number in range(first, first + 1000):
                ready.add(number)

        return add_all

    with fast_switching():
        run_threads(*[fetch] * 4, *[add(first) for first in (0, 1000, 2000)])

    assert sorted(got) == list(range(3000))
