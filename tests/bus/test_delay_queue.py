from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_gomq.bus.process import timers as module
from django_gomq.bus.process.timers import DelayQueue, Timers


class Clock(Timers):
    """Timers whose time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Callable[[], object]]] = []

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        self.calls.append((self.now + seconds, call))

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((one for one in self.calls if one[0] <= self.now), key=_moment)
        self.calls = [one for one in self.calls if one[0] > self.now]
        for _, call in due:
            call()


def _moment(one: tuple[float, object]) -> float:
    return one[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(module, "Clock", SimpleNamespace(monotonic=lambda: clock.now))
        yield clock


def test_an_item_comes_back_when_it_is_due(clock: Clock) -> None:
    back: list[str] = []
    shelf = DelayQueue(clock, back.append)
    shelf.put("a", 5)

    clock.pass_seconds(4)
    early = list(back)
    clock.pass_seconds(1)

    assert (early, back) == ([], ["a"])


def test_items_come_back_in_the_order_of_their_times(clock: Clock) -> None:
    back: list[str] = []
    shelf = DelayQueue(clock, back.append)

    for item, seconds in (("c", 3), ("a", 1), ("b", 2)):
        shelf.put(item, seconds)
    clock.pass_seconds(9)

    assert back == ["a", "b", "c"]


def test_an_item_comes_back_once(clock: Clock) -> None:
    back: list[str] = []
    DelayQueue(clock, back.append).put("a", 1)
    ((_, call),) = clock.calls

    call()
    call()

    assert back == ["a"]


def test_equal_items_are_two(clock: Clock) -> None:
    back: list[str] = []
    shelf = DelayQueue(clock, back.append)
    shelf.put("a", 1)
    shelf.put("a", 1)

    clock.pass_seconds(1)

    assert back == ["a", "a"]


def test_what_was_taken_does_not_come_back(clock: Clock) -> None:
    back: list[str] = []
    shelf = DelayQueue(clock, back.append)
    shelf.put("a", 1)
    shelf.put("b", 2)

    taken = shelf.take_all()
    clock.pass_seconds(9)

    assert (taken, back, len(shelf)) == (["a", "b"], [], 0)


def test_its_length_is_what_waits(clock: Clock) -> None:
    shelf = DelayQueue[str](clock, lambda _: None)
    for seconds in (1, 2, 3):
        shelf.put("a", seconds)

    clock.pass_seconds(1)

    assert len(shelf) == 2


@pytest.mark.parametrize(
    ("seconds", "count"), [((), 3), ((0,), 3), ((1.5,), 2), ((2,), 1), ((3,), 0)]
)
def test_it_says_how_many_are_due_after_a_time(
    clock: Clock, seconds: tuple[float, ...], count: int
) -> None:
    shelf = DelayQueue[str](clock, lambda _: None)
    for due in (1, 2, 3):
        shelf.put("a", due)

    assert shelf.due_after(*seconds) == count


def test_what_comes_back_may_be_put_again_at_once(clock: Clock) -> None:
    back: list[str] = []

    def give_back(item: str) -> None:
        back.append(item)
        shelf.put(item, 1)

    shelf: DelayQueue[Any] = DelayQueue(clock, give_back)
    shelf.put("a", 1)
    clock.pass_seconds(1)
    clock.pass_seconds(1)

    assert (back, len(shelf)) == (["a", "a"], 1)
