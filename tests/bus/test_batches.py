"""Batches: when they are full, and what becomes of their members."""

from __future__ import annotations

import time
from typing import Any

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    BatchFailed,
    DropReason,
    RetryLater,
)
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled

BLAMED = (
    "ConfigurationError: BatchFailed names '0', the id of no message in the batch: "
    "write BatchFailed({message.id: error, ...})."
)
SOON = Retry(attempts=3, min_delay=0, max_delay=0.001)


def test_a_batch_is_handled_at_once_when_it_is_full(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume(
        "a.b", lambda b: sizes.append(len(b)), name="c", batch=3, linger=2 * LONG
    )

    for _ in range(3):
        broker.publish(Message("a.b"))

    wait_until(lambda: sizes == [3])


def test_a_batch_that_stays_short_is_handled_after_its_linger(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume(
        "a.b", lambda b: sizes.append(len(b)), name="c", batch=100, linger=0.02
    )

    for _ in range(3):
        broker.publish(Message("a.b"))

    wait_until(lambda: sum(sizes) == 3)
    wait_until(lambda: not broker._current_runtime()._worker._lingering)


def test_a_full_channel_does_not_linger(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume(
        "a.b",
        lambda b: sizes.append(len(b)),
        name="c",
        batch=100,
        capacity=2,
        linger=2 * LONG,
        overflow="backpressure",
    )

    for _ in range(4):
        broker.publish(Message("a.b"))

    wait_until(lambda: sum(sizes) == 4)


def test_what_waited_through_a_linger_may_be_gone_at_its_end(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c", batch=9, linger=0.01)
    broker.start()
    worker: Any = broker._current_runtime()._worker
    subscription = broker._current_runtime().subscription("c")

    subscription.notify()

    wait_until(lambda: not worker._lingering)
    assert len(subscription.free_slots) == 1


def test_a_batch_without_linger_takes_what_is_there(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume("a.b", lambda b: sizes.append(len(b)), name="c", batch=4)
    broker.pause("c")
    for _ in range(10):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 10)

    broker.resume("c")

    wait_until(lambda: sizes == [4, 4, 2])


def publish_numbers(broker: Broker, count: int) -> None:
    broker.pause("c")
    for number in range(count):
        broker.publish(Message("a.b", b"%d" % number))
    wait_until(lambda: broker.stats().consumers["c"].depth == count)
    broker.resume("c")


def test_of_a_failed_batch_each_member_is_tried_alone(make_broker: MakeBroker) -> None:
    recorder, calls = Recorder(), list[list[int]]()
    broker = make_broker(hooks=[recorder])

    def handle(batch: list[Message[Any]]) -> None:
        calls.append([message.data for message in batch])
        if 1 in calls[-1]:
            raise ValueError

    broker.consume("a.b", handle, name="c", batch=3)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert calls == [[0, 1, 2], [0], [1], [2]]
    assert (stats.succeeded, stats.dead_lettered) == (2, 1)
    ((name, size, error),) = recorder.named("batch_failed")
    assert (name, size, type(error)) == ("c", 3, ValueError)


def test_a_handler_may_say_which_members_failed(broker: Broker) -> None:
    attempts: dict[int, list[int]] = {}

    def handle(batch: list[Message[Any]]) -> None:
        for message in batch:
            attempts.setdefault(message.data, []).append(message.attempt)
        raise BatchFailed({m.id: ValueError() for m in batch if m.data == 1})

    broker.consume("a.b", handle, name="c", batch=3, retry=SOON)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    assert attempts == {0: [1], 1: [1, 2, 3], 2: [1]}
    assert broker.stats().consumers["c"].dead_lettered == 1


def test_a_batch_that_blames_nobody_has_failed_where_all_it_did_is_rolled_back(
    broker: Broker,
) -> None:
    def handle(batch: list[Message[Any]]) -> None:
        raise BatchFailed({})

    broker.consume("a.b", handle, name="c", batch=3, atomic=True)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].dead_lettered == 3


def test_a_batch_that_blames_a_message_of_another_has_failed(broker: Broker) -> None:
    def handle(batch: list[Message[Any]]) -> None:
        raise BatchFailed({str(batch[0].data): ValueError()})

    broker.consume("a.b", handle, name="c", batch=3)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    assert [letter.error for letter in broker.dead_letters()] == 3 * [BLAMED]


def test_a_whole_batch_may_be_put_off(broker: Broker) -> None:
    calls: list[int] = []

    def handle(batch: list[Message[Any]]) -> None:
        calls.append(len(batch))
        if len(calls) == 1:
            raise RetryLater(0.001)

    broker.consume("a.b", handle, name="c", batch=3)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    assert calls[0] == 3
    assert sum(calls[1:]) == 3
    assert broker.stats().consumers["c"].succeeded == 3


def test_old_members_leave_a_batch_before_it_is_handled(broker: Broker) -> None:
    calls: list[list[int]] = []
    broker.consume(
        "a.b",
        lambda batch: calls.append([m.data for m in batch]),
        name="c",
        batch=3,
        max_age=600,
    )
    broker.pause("c")
    now = time.time()
    for number, age in enumerate((0, 1200, 0)):
        broker.publish(Message("a.b", b"%d" % number, number="x", made=now - age))
    broker.publish(Message("a.b", number="x", made=1.0))
    wait_until(lambda: broker.stats().consumers["c"].depth == 4)

    broker.resume("c")
    wait_until_settled(broker)

    assert calls == [[0, 2]]
    assert broker.stats().consumers["c"].dropped == {("a.b", DropReason.EXPIRED): 2}
