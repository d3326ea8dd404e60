"""Waiting for what was accepted: who may shorten it, and what is told meanwhile."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.stats import Remainder
from django_gomq.bus.worker import drain
from tests.bus.conftest import MakeBroker
from tests.bus.waiting import LONG, wait_until


class Held:
    """A handler that stands still until it is let go."""

    def __init__(self, broker: Broker) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()
        broker.consume("a.b", self.handle, name="held")
        broker.publish(Message("a.b"))
        assert self.entered.wait(LONG)

    def handle(self, message: Message[Any]) -> None:
        self.entered.set()
        self.gate.wait(LONG)


@pytest.fixture
def held(broker: Broker) -> Held:
    return Held(broker)


def test_a_second_close_gives_the_first_one_less_time(
    broker: Broker, held: Held
) -> None:
    answers: list[Remainder] = []
    first = threading.Thread(target=lambda: answers.append(broker.close(3600)))
    first.start()
    wait_until(lambda: broker.is_draining)

    remainder = broker.close(0)
    first.join(LONG)
    held.gate.set()

    assert answers == [remainder]
    assert remainder.in_flight == 1
    assert not broker.is_draining


def test_a_second_close_never_gives_the_first_one_more_time(
    broker: Broker, held: Held
) -> None:
    first = threading.Thread(target=broker.close, args=(0.05,))
    first.start()
    wait_until(lambda: broker.is_closed)

    remainder = broker.close(3600)
    held.gate.set()

    assert remainder.in_flight == 1


def test_what_is_accepted_can_be_waited_for_and_the_broker_goes_on(
    broker: Broker, held: Held
) -> None:
    broker.finish(0.01)
    had_work = broker.has_work()
    threading.Timer(0.05, held.gate.set).start()

    broker.finish(LONG)
    has_work = broker.has_work()
    broker.publish(Message("a.b"))
    broker.finish(LONG)

    assert (had_work, has_work) == (True, False)
    assert broker.stats().consumers["held"].succeeded == 2


def test_a_broker_that_was_never_used_has_no_work_and_drains_nothing(
    broker: Broker,
) -> None:
    assert not broker.has_work()
    assert not broker.is_draining

    broker.close()

    assert not broker.is_draining


def test_what_comes_again_too_late_is_no_work_of_that_time(broker: Broker) -> None:
    broker.consume("a.b", print, name="late")
    broker.publish(Message("a.b", delay=LONG))

    # Before the dispatcher has looked at it, its time is not known.
    wait_until(lambda: not broker.has_work(LONG / 2))
    broker.finish(LONG / 2)

    assert broker.has_work(LONG * 2)


class Watcher(Hook):
    def __init__(self) -> None:
        self.left: list[int] = []

    def draining(self, broker: str, left: int, seconds: float) -> None:
        self.left.append(left)


def test_observers_hear_how_many_are_left(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "TELL_SECONDS", 0.01)
    watcher = Watcher()
    broker = make_broker(hooks=[watcher])
    held = Held(broker)
    for _ in range(4):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["held"].depth == 4)
    wait_until(lambda: broker.stats().queues["a.b"].depth == 0)
    closing = threading.Thread(target=broker.close, args=(LONG,))

    closing.start()
    wait_until(lambda: len(watcher.left) > 1)
    held.gate.set()
    closing.join(LONG)

    assert watcher.left[:2] == [5, 5]


def test_a_wait_ends_where_it_is_over_whatever_is_left(
    broker: Broker, held: Held
) -> None:
    work: Any = broker._current_runtime()._drain

    work.wait(time.monotonic() + 2 * LONG, lambda: True)

    assert work.has_work()
    held.gate.set()
