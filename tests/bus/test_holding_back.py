"""Whoever may wait does not lose: a full channel holds the publisher back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_gomq.backends.memory import publisher
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import (
    BrokerClosedError,
    PublishError,
    PublishTimeoutError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.process.fork import hurried
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled

COUNT = 500


class Handled:
    """Counts what handlers of any kind were given."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def one(self, name: str) -> Callable[[Any], None]:
        self.counts[name] = 0

        def handle(message: Any) -> None:
            self.counts[name] += 1

        return handle

    def many(self, name: str) -> Callable[[Any], None]:
        self.counts[name] = 0

        def handle(messages: Any) -> None:
            self.counts[name] += len(messages)

        return handle

    def on_loop(self, name: str) -> Callable[[Any], Any]:
        self.counts[name] = 0

        async def handle(message: Any) -> None:
            await asyncio.sleep(0)
            self.counts[name] += 1

        return handle


def subscribe_every_kind(broker: Broker) -> Handled:
    handled = Handled()
    for overflow in ("drop_newest", "drop_oldest", "backpressure"):
        options: Any = {"overflow": overflow, "capacity": 3}
        broker.consume("a.b", handled.one(overflow), name=overflow, **options)
    broker.consume("a.*", handled.many("batch"), name="batch", batch=5, capacity=7)
    broker.consume("a.b", handled.on_loop("async"), name="async", capacity=5)
    broker.consume("a.*", handled.one("pattern"), name="pattern", capacity=4)
    return handled


@pytest.mark.parametrize("priority", [5, None])
@pytest.mark.parametrize("at_once", [False, True])
def test_nothing_is_lost_whatever_the_consumers_where_publishers_may_wait(
    make_broker: MakeBroker, at_once: bool, priority: int | None
) -> None:
    broker = make_broker(capacity=10, may_wait=lambda: True)
    handled = subscribe_every_kind(broker)
    messages = [
        Message("a.b", b"%d" % n, priority=n % 10 if priority is None else priority)
        for n in range(COUNT)
    ]

    if at_once:
        assert not any(broker.publish_many(messages))
    else:
        for message in messages:
            broker.publish(message)

    wait_until_settled(broker)
    assert set(handled.counts.values()) == {COUNT}
    assert len(handled.counts) == 6


def test_nothing_is_lost_of_an_ordered_consumer_and_of_several_types(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker(capacity=10, may_wait=lambda: True)
    handled: list[int] = []
    broker.consume(
        ["a.b", "a.c"],
        lambda m: handled.append(m.data),
        name="c",
        ordered_by_key=True,
        capacity=5,
    )

    for number in range(COUNT):
        kind = "a.b" if number % 2 else "a.c"
        broker.publish(Message(kind, b"%d" % number, key=str(number % 3)))

    wait_until_settled(broker)
    assert sorted(handled) == list(range(COUNT))


def hold_one(broker: Broker, **options: Any) -> threading.Event:
    """Have a consumer stand still in its first message until the event is set."""
    entered, gate = threading.Event(), threading.Event()

    def handle(message: Any) -> None:
        entered.set()
        gate.wait(LONG)

    broker.consume("a.b", handle, name="held", **options)
    broker.publish(Message("a.b"))
    assert entered.wait(LONG)
    return gate


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_what_is_published_with_a_timeout_is_refused_and_never_dropped(
    make_broker: MakeBroker, overflow: Any
) -> None:
    broker = make_broker(capacity=3)
    gate = hold_one(broker, capacity=1, overflow=overflow)

    for _ in range(3):
        broker.publish(Message("a.b"), timeout=LONG)
    with pytest.raises(PublishTimeoutError):
        broker.publish(Message("a.b"), timeout=0.01)
    gate.set()

    wait_until_settled(broker)
    stats = broker.stats().consumers["held"]
    assert (stats.succeeded, sum(stats.dropped.values())) == (4, 0)


def test_once_nobody_waits_any_more_the_overflow_decides_again(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    gate = hold_one(broker, capacity=1)
    broker.publish(Message("a.b"), timeout=LONG)
    gate.set()
    wait_until_settled(broker)
    broker.pause("held")

    for _ in range(3):
        broker.publish(Message("a.b"))

    wait_until(lambda: broker.stats().queues["a.b"].depth == 0)
    wait_until(lambda: sum(broker.stats().consumers["held"].dropped.values()) == 2)


@pytest.mark.parametrize("priorities", [(5, 5), (5, 9)])
def test_a_dispatcher_that_takes_what_comes_as_it_looks_drops_nothing_of_it(
    make_broker: MakeBroker, priorities: tuple[int, int]
) -> None:
    broker = make_broker(may_wait=lambda: False)
    broker.consume("a.b", print, name="back", overflow="backpressure", capacity=1)
    gate = hold_one(broker, capacity=1)
    wait_until(lambda: broker.stats().consumers["back"].succeeded)
    backend: Any = broker._current_runtime().backend
    queue = backend._queues.by_type["a.b"]
    take, first, second = queue.take_into, *priorities

    def publish_and_take(batch: Any, most: int) -> Any:
        queue.take_into = take
        broker.publish(Message("a.b", priority=second), timeout=LONG)
        return take(batch, most)

    queue.take_into = publish_and_take
    broker.publish(Message("a.b", priority=first))
    wait_until(lambda: queue.take_into is take)
    gate.set()

    wait_until_settled(broker)
    stats = broker.stats().consumers
    assert {name: stats[name].succeeded for name in stats} == {"held": 3, "back": 3}


def test_who_is_in_a_hurry_leaves_it_to_the_overflow(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=3, may_wait=lambda: False)
    gate = hold_one(broker, capacity=1)

    with hurried():
        for _ in range(9):
            broker.publish(Message("a.b"), timeout=LONG)

    wait_until(lambda: sum(broker.stats().consumers["held"].dropped.values()) == 9)
    gate.set()


def test_who_is_in_a_hurry_does_not_wait_without_a_timeout_where_others_may(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker(capacity=1, may_wait=lambda: True)
    gate = hold_one(broker, capacity=1)
    broker.publish(Message("a.b"))

    with hurried(), pytest.raises(QueueFullError):
        broker.publish(Message("a.b"))

    gate.set()
    broker.publish(Message("a.b"))
    wait_until_settled(broker)
    assert broker.stats().consumers["held"].succeeded == 3


def test_a_timeout_of_nothing_waits_for_nothing(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=1, may_wait=lambda: True)
    gate = hold_one(broker, capacity=1)
    broker.publish(Message("a.b"))

    with pytest.raises(QueueFullError):
        broker.publish(Message("a.b"), timeout=0)

    gate.set()


def test_a_paused_consumer_holds_nobody_back(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=2, may_wait=lambda: True)
    broker.consume("a.b", print, name="paused", capacity=1)
    broker.pause("paused")

    for _ in range(9):
        broker.publish(Message("a.b"))

    wait_until(lambda: sum(broker.stats().consumers["paused"].dropped.values()) == 8)


def test_a_handler_that_feeds_its_own_type_is_refused_and_never_waits(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker(capacity=2, may_wait=lambda: True)
    refused: list[str] = []

    def publish(number: int) -> None:
        try:
            broker.publish(Message("a.b", b"-1"))
        except PublishError as error:
            refused.append(error.code)

    def handle(message: Any) -> None:
        if message.data >= 0:
            publish(message.data)

    async def handle_async(message: Any) -> None:
        if message.data >= 0:
            await asyncio.to_thread(publish, message.data)

    broker.consume("a.b", handle, name="sync", capacity=2)
    broker.consume("a.b", handle_async, name="async", capacity=2)

    for number in range(100):
        broker.publish(Message("a.b", b"%d" % number))

    wait_until_settled(broker)
    consumers = broker.stats().consumers
    assert set(refused) == {"queue_full"}
    handled = [consumers[name].succeeded for name in ("sync", "async")]
    assert handled == [300 - len(refused)] * 2


def test_who_waits_is_refused_when_the_broker_closes(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=1, may_wait=lambda: True)
    gate = hold_one(broker, capacity=1)
    broker.publish(Message("a.b"))
    raised: list[PublishError] = []

    def publish() -> None:
        try:
            broker.publish(Message("a.b"))
        except PublishError as error:
            raised.append(error)

    waiting = threading.Thread(target=publish)
    waiting.start()
    queue = broker._current_runtime().backend._queues.by_type["a.b"]  # type: ignore[attr-defined]
    wait_until(lambda: len(queue._waiters) == 1)

    broker.close(0)
    waiting.join(LONG)
    gate.set()

    assert [type(error) for error in raised] == [BrokerClosedError]


@pytest.mark.parametrize("is_slow", [True, False])
def test_who_waits_long_is_told_for_whom(
    make_broker: MakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_slow: bool,
) -> None:
    monkeypatch.setattr(publisher, "_TELL_SECONDS", 0.0 if is_slow else LONG)
    monkeypatch.setattr(publisher, "_NAP_SECONDS", 0.001)
    recorder = Recorder()
    broker = make_broker(capacity=1, may_wait=lambda: True, hooks=[recorder])
    gate = hold_one(broker, capacity=1)
    broker.publish(Message("a.b"))

    with caplog.at_level(logging.WARNING):
        waiting = threading.Thread(target=broker.publish, args=(Message("a.b"),))
        waiting.start()
        if is_slow:
            wait_until(lambda: "has waited" in caplog.text)
        gate.set()
        waiting.join(LONG)
        recorder.flush()

    told = [one for one in caplog.messages if "has waited" in one]
    assert bool(told) is is_slow
    assert all("a.b has waited" in one for one in told)
    assert any("in the channel of held:" in one for one in told) is is_slow
