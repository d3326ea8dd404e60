"""What a full channel drops, and in whose favour."""

from __future__ import annotations

from typing import Any

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    Delivery,
    DropReason,
)
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import wait_until, wait_until_settled


def numbers_handled(broker: Broker, priorities: list[int], **options: Any) -> list[int]:
    handled: list[int] = []
    broker.consume("a.b", lambda m: handled.append(m.data), name="c", **options)
    broker.pause("c")
    for number, priority in enumerate(priorities):
        broker.publish(Message("a.b", b"%d" % number, priority=priority))
        wait_until(lambda: broker.stats().queues["a.b"].depth == 0)
    broker.resume("c")
    wait_until_settled(broker)
    return handled


def test_by_default_the_newest_is_dropped(make_broker: MakeBroker) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])

    handled = numbers_handled(broker, [5, 5, 5, 9], capacity=2)

    assert handled == [0, 1]
    assert recorder.named("dropped") == [("c", 1, DropReason.CHANNEL_FULL)] * 2
    assert broker.stats().consumers["c"].dropped == {
        ("a.b", DropReason.CHANNEL_FULL): 2
    }


def test_the_oldest_of_the_lowest_priority_may_go_instead(broker: Broker) -> None:
    handled = numbers_handled(
        broker, [5, 1, 1, 5, 9], capacity=3, overflow="drop_oldest"
    )

    assert handled == [4, 0, 3]
    assert broker.stats().consumers["c"].dropped == {("a.b", DropReason.EVICTED): 2}


def test_what_is_less_urgent_than_all_that_waits_is_dropped_itself(
    broker: Broker,
) -> None:
    handled = numbers_handled(broker, [9, 9, 1], capacity=2, overflow="drop_oldest")

    assert handled == [0, 1]
    assert broker.stats().consumers["c"].dropped == {
        ("a.b", DropReason.CHANNEL_FULL): 1
    }


def test_many_arrivals_evict_as_many_as_they_are(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", capacity=3, overflow="drop_oldest")
    subscription = broker._current_runtime().subscription("c")
    subscription.paused = True
    deliveries = [Delivery(Message("a.b", b"%d" % n), 0) for n in range(5)]
    subscription.offer(deliveries[:3])

    subscription.offer(deliveries[3:])

    left = subscription.take_all()
    assert [one.message.body for one in left] == [b"2", b"3", b"4"]
    subscription.channel.release(3)
