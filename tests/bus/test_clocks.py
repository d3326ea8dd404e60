"""Clocks that are set, or that a test has stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import freezegun
import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.bus.conftest import MakeBroker
from tests.bus.waiting import LONG, wait_until, wait_until_settled

SOON = Retry(attempts=2, min_delay=0.01, max_delay=0.01)


class WallClock:
    """What time it is said to be."""

    def __init__(self) -> None:
        self.step = 0.0
        self._real = time.time

    def time(self) -> float:
        return self._real() + self.step


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


def make_sync(handle: Callable[[Any], None]) -> Any:
    return handle


def make_async(handle: Callable[[Any], None]) -> Any:
    async def ahandle(message: Message[Any]) -> None:
        async with asyncio.timeout(LONG):
            await asyncio.sleep(0.001)
        handle(message)

    return ahandle


def make_batch(handle: Callable[[Any], None]) -> Any:
    def handle_all(messages: list[Message[Any]]) -> None:
        for message in messages:
            handle(message)

    return handle_all


@pytest.mark.parametrize("step", [3600.0, -3600.0])
@pytest.mark.parametrize(
    ("make", "options"),
    [(make_sync, {}), (make_async, {}), (make_batch, {"batch": 2})],
    ids=["sync", "async", "batch"],
)
def test_a_wall_clock_that_is_set_changes_no_age(
    broker: Broker, wall_clock: WallClock, step: float, make: Any, options: Any
) -> None:
    handled: list[Any] = []
    broker.consume(
        "a.b", make(handled.append), name="c", max_age=600, retry=SOON, **options
    )
    broker.pause("c")
    for _ in range(3):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 3)

    wall_clock.step = step
    oldest = broker.stats().consumers["c"].oldest_age
    broker.publish(Message("a.b"))
    broker.resume("c")
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert 0 <= oldest < 60
    assert len(handled) == 4
    assert stats.dropped == {}
    assert 0 <= stats.wait.sum_seconds < 240


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_what_is_delayed_comes_in_time_whatever_the_wall_clock_says(
    broker: Broker, wall_clock: WallClock, step: float
) -> None:
    handled: list[Any] = []
    broker.consume("a.b", handled.append, name="c", max_age=600)
    broker.publish(Message("a.b", delay=0.05))

    wall_clock.step = step
    wait_until_settled(broker)

    assert len(handled) == 1
    assert 0 <= broker.stats().consumers["c"].wait.sum_seconds < 60


@pytest.fixture
def _stopped_clock() -> Iterator[None]:
    with freezegun.freeze_time("2030-01-01"):
        yield


@pytest.mark.usefixtures("_stopped_clock")
@pytest.mark.parametrize("make", [make_sync, make_async])
def test_retries_and_delays_come_where_a_test_has_stopped_the_clock(
    broker: Broker, make: Any
) -> None:
    attempts: list[int] = []

    def fail_once(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            raise ValueError

    broker.consume("a.b", make(fail_once), name="c", retry=SOON)

    broker.publish(Message("a.b", delay=0.01))

    wait_until(lambda: len(attempts) == 2)
    assert attempts == [1, 2]


@pytest.mark.usefixtures("_stopped_clock")
def test_a_drain_ends_where_a_test_has_stopped_the_clock(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.runtime.STOP_SECONDS", LONG)

    def fail(message: Message[Any]) -> None:
        raise ValueError

    async def never_end(message: Message[Any]) -> None:
        await asyncio.sleep(1e6)

    broker = make_broker()
    late = Retry(attempts=2, min_delay=1000, max_delay=1000)
    broker.consume("a.b", fail, name="retried", retry=late)
    broker.consume("a.b", never_end, name="async")
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["retried"].scheduled == 1)
    wait_until(lambda: broker.stats().consumers["async"].in_flight == 1)

    remainder = broker.close(timeout=0.2)

    assert remainder.dropped == {"a.b": 2}
    assert remainder.seconds >= 0.1
