from __future__ import annotations

import functools
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from django_gomq.bus.worker import ready_queue as module
from django_gomq.bus.worker.ready_queue import ReadyQueue
from tests.bus.interleaving import interleaved
from tests.bus.interrupting import Interrupted
from tests.bus.waiting import LONG, fast_switching, run_threads, wait_until


@pytest.fixture
def ready() -> ReadyQueue[int]:
    return ReadyQueue()


class Bed:
    """A lock that knows when its sleeper has looked again and lies down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.locked = self._lock.locked
        self.is_slept_in = False

    def acquire(self, timeout: float = -1) -> bool:
        self.is_slept_in = self.locked()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def wait_until_asleep(ready: ReadyQueue[int], sleepers: int) -> None:
    beds: Any = ready._sleepers
    wait_until(lambda: sum(bed.is_slept_in for bed in list(beds)) == sleepers)


def sleep_with(
    ready: ReadyQueue[int], sleepers: int, work: Callable[[], object]
) -> list[int | None]:
    """Run ``work`` once that many threads sleep; return the item that each got."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Lock", Bed)
        return _sleep_with(ready, sleepers, work)


def _sleep_with(
    ready: ReadyQueue[int], sleepers: int, work: Callable[[], object]
) -> list[int | None]:
    got: deque[int | None] = deque()
    threads = [
        threading.Thread(target=lambda: got.append(ready.next()), daemon=True)
        for _ in range(sleepers)
    ]
    for thread in threads:
        thread.start()
    wait_until_asleep(ready, sleepers)
    work()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads), "a sleeper was not woken"
    return sorted(got, key=str)


def test_items_come_in_the_order_they_were_added(ready: ReadyQueue[int]) -> None:
    for number in range(5):
        ready.add(number)

    assert [ready.next() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_its_length_is_what_waits(ready: ReadyQueue[int]) -> None:
    ready.add(1)
    ready.add(2)
    ready.next()

    assert len(ready) == 1


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_nothing_comes_in_time(ready: ReadyQueue[int], timeout: float) -> None:
    assert ready.next(timeout) is None


def test_what_is_there_comes_without_a_wait(ready: ReadyQueue[int]) -> None:
    ready.add(1)

    assert ready.next(0) == 1


def test_who_waited_in_vain_is_not_woken_later(ready: ReadyQueue[int]) -> None:
    ready.next(0.001)

    assert not ready._sleepers


def test_an_added_item_wakes_a_sleeper(ready: ReadyQueue[int]) -> None:
    assert sleep_with(ready, 1, lambda: ready.add(7)) == [7]


def test_every_item_is_fetched_while_sleepers_remain(ready: ReadyQueue[int]) -> None:
    def work() -> None:
        for number in range(4):
            ready.add(number)

    assert sleep_with(ready, 4, work) == [0, 1, 2, 3]


def test_a_woken_thread_wakes_the_next_while_more_waits(ready: ReadyQueue[int]) -> None:
    def work() -> None:
        ready._items.extend([1, 2])  # unheard
        ready.add(3)

    assert sleep_with(ready, 3, work) == [1, 2, 3]


def test_what_a_thread_adds_for_itself_wakes_nobody(ready: ReadyQueue[int]) -> None:
    def work() -> None:
        ready.add_quietly(1)
        sleepers.append(len(ready._sleepers))
        assert ready.next() == 1
        ready.add(2)

    sleepers: list[int] = []

    assert sleep_with(ready, 1, work) == [2]
    assert sleepers == [1]


def test_what_a_thread_adds_for_itself_waits_its_turn(ready: ReadyQueue[int]) -> None:
    ready.add(1)

    ready.add_quietly(2)

    assert [ready.next(), ready.next()] == [1, 2]


def test_who_is_called_takes_that_item_before_all_others(
    ready: ReadyQueue[int],
) -> None:
    def work() -> None:
        ready.add_quietly(1)
        assert ready.call(2)

    assert sleep_with(ready, 1, work) == [2]
    assert ready.take() == 1


def test_nobody_is_called_where_nobody_sleeps(ready: ReadyQueue[int]) -> None:
    assert not ready.call(1)
    assert ready.take() is None


def test_who_is_on_the_way_to_something_else_is_not_called(
    ready: ReadyQueue[int],
) -> None:
    sleeper = threading.Lock()  # released: its sleeper has not got up yet
    ready._sleepers.append(sleeper)

    assert not ready.call(1)
    assert ready.take() is None


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_call_that_came_second_takes_its_item_back_if_it_can(
    ready: ReadyQueue[int], is_taken: bool
) -> None:
    class Bed:
        """Another waker is faster."""

        def locked(self) -> bool:
            return True

        def release(self) -> None:
            if is_taken:
                ready.take()
            raise RuntimeError

    ready._sleepers.append(Bed())  # type: ignore[arg-type]

    assert ready.call(1) is is_taken
    assert not len(ready)


def test_while_a_thread_that_is_awake_comes_next_nobody_is_woken(
    ready: ReadyQueue[int],
) -> None:
    def work() -> None:
        ready.expects_caller = True
        ready.add(1)
        assert all(sleeper.locked() for sleeper in list(ready._sleepers))
        ready.expects_caller = False
        assert ready.next() == 1
        ready.add(2)

    assert sleep_with(ready, 1, work) == [2]


def test_only_who_has_something_to_come_for_is_woken(ready: ReadyQueue[int]) -> None:
    def work() -> None:
        ready.wake()
        assert all(sleeper.locked() for sleeper in list(ready._sleepers))
        ready.add_quietly(1)
        ready.wake()

    assert sleep_with(ready, 1, work) == [1]


def test_while_one_is_being_woken_nobody_else_is(ready: ReadyQueue[int]) -> None:
    woken: list[int] = []

    class Bed:
        """Its sleeper is on the way for as long as we look."""

        def __init__(self) -> None:
            self.is_left = False

        def release(self) -> None:
            self.is_left = True
            woken.append(1)

        def locked(self) -> bool:
            return not self.is_left

    ready._sleepers.extend([Bed(), Bed()])  # type: ignore[list-item]

    for number in range(5):
        ready.add(number)

    assert woken == [1]


def test_who_was_woken_lets_others_be_woken_again(ready: ReadyQueue[int]) -> None:
    def work() -> None:
        for number in range(3):
            ready.add(number)
            wait_until(lambda number=number: len(ready._sleepers) == 2 - number)  # type: ignore[misc]

    assert sleep_with(ready, 3, work) == [0, 1, 2]


def test_closing_wakes_all_sleepers(ready: ReadyQueue[int]) -> None:
    assert sleep_with(ready, 3, ready.close) == [None, None, None]


def test_what_is_left_at_the_close_is_handed_out(ready: ReadyQueue[int]) -> None:
    ready.add(1)

    ready.close()

    assert [ready.next(), ready.next(), ready.next()] == [1, None, None]


def test_what_is_added_while_somebody_lies_down_is_seen(ready: ReadyQueue[int]) -> None:
    class Beds(deque[Any]):
        def append(self, sleeper: Any) -> None:
            super().append(sleeper)
            ready._items.append(7)  # by one who looked for sleepers too early

    ready._sleepers = Beds()

    assert ready.next() == 7


def test_a_close_while_somebody_lies_down_is_seen(ready: ReadyQueue[int]) -> None:
    class Beds(deque[Any]):
        def append(self, sleeper: Any) -> None:
            super().append(sleeper)
            ready.closed = True

    ready._sleepers = Beds()

    assert ready.next() is None


def test_a_sleeper_that_got_up_meanwhile_is_no_trouble(ready: ReadyQueue[int]) -> None:
    class Beds(deque[Any]):
        def __bool__(self) -> bool:
            return True  # there was one a moment ago

    ready._sleepers = Beds()

    ready.add(7)

    assert ready.next() == 7


def test_racing_threads_hand_over_each_item_once(ready: ReadyQueue[int]) -> None:
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


def test_a_sleeper_that_finds_work_before_its_waker_is_done_can_be_woken_again(
    ready: ReadyQueue[int],
) -> None:
    found, overtaken = threading.Event(), threading.Event()
    adder = threading.Thread(target=lambda: ready.add(7), daemon=True)

    class Beds(deque[Any]):
        def append(self, sleeper: Any) -> None:
            super().append(sleeper)
            if not found.is_set():  # we lie down: somebody adds, and begins to wake us
                adder.start()
                found.wait(LONG)

        def pop(self) -> Any:  # type: ignore[override]
            return self._dawdle(super().pop())

        def __getitem__(self, index: Any) -> Any:
            return self._dawdle(super().__getitem__(index))

        def _dawdle(self, sleeper: Any) -> Any:
            found.set()
            overtaken.wait(LONG)  # it is slow, and we see the item ourselves
            return sleeper

    ready._sleepers = Beds()
    first = ready.next()
    overtaken.set()
    adder.join(LONG)

    assert first == 7
    assert sleep_with(ready, 1, lambda: ready.add(8)) == [8]


@pytest.mark.parametrize("sleepers", [1, 2])
def test_a_wake_up_that_a_signal_handler_ends_keeps_nobody_asleep_for_ever(
    ready: ReadyQueue[int], monkeypatch: pytest.MonkeyPatch, sleepers: int
) -> None:
    class InterruptedBed(Bed):
        def release(self) -> None:
            if not interrupted.is_set():
                interrupted.set()
                raise Interrupted
            super().release()

    interrupted, got = threading.Event(), deque[int | None]()
    monkeypatch.setattr(module, "Lock", InterruptedBed)
    threads = [
        threading.Thread(target=lambda: got.append(ready.next()), daemon=True)
        for _ in range(sleepers)
    ]
    for thread in threads:
        thread.start()
    wait_until_asleep(ready, sleepers)

    with pytest.raises(Interrupted):
        ready.add(1)
    ready.add(2)  # as the dispatcher does once a second for what lies unseen

    wait_until(lambda: got)


@pytest.mark.parametrize("timeouts", [[-1.0], [-1.0, 0.0, 1e-6, 1e-4, 0.01]])
def test_no_wake_up_is_lost(  # noqa: C901 - one race
    ready: ReadyQueue[int], timeouts: list[float]
) -> None:
    adders, most = 3, 1500
    seen = [threading.Semaphore(0) for _ in range(adders)]
    got: list[int] = []

    def fetch(seed: int) -> None:
        dice = random.Random(seed)
        while not ready.closed:
            number = ready.next(dice.choice(timeouts))
            if number is None:
                continue
            got.append(number)
            if number < 0:  # a part of it is done, and we come back for the rest
                ready.add_quietly(-number)
            else:
                seen[number % adders].release()

    def add(number: int) -> None:
        dice = random.Random(number)
        for _ in range(most):
            burst = dice.choice([1, 1, 1, 2, 5])
            for _ in range(burst):
                ready.add((adders + number) * dice.choice([1, 1, -1]))
            # Who has added waits for it alone: nobody else may wake a sleeper for us.
            for _ in range(burst):
                assert seen[number].acquire(timeout=LONG), "an item lies unseen"

    def add_all() -> None:
        try:
            run_threads(*(functools.partial(add, number) for number in range(adders)))
        finally:
            ready.close()

    with interleaved(module, chance=0.05):
        run_threads(*(functools.partial(fetch, seed) for seed in range(3)), add_all)

    assert len(ready) == 0
    assert not ready._sleepers


def test_one_sleeper_and_one_waker_never_miss_each_other(
    ready: ReadyQueue[int],
) -> None:
    back: deque[int | None] = deque()

    def dispatch() -> None:
        while (number := ready.next()) is not None:
            back.append(number)

    def publish() -> None:
        try:
            for number in range(1000):
                ready.add(number)
                if number % 3 == 0:
                    wait_until(lambda number=number: len(back) == number + 1)  # type: ignore[misc]
        finally:
            ready.close()

    with interleaved(module, chance=0.05):
        run_threads(dispatch, publish)

    assert list(back) == list(range(1000))
