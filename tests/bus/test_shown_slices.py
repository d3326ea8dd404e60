"""An observer of the worker is shown what became of slices, while there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import Consumer, make_consumer
from django_gomq.bus.delivery import Reject
from django_gomq.bus.message import Message
from django_gomq.bus.worker.settler import Results
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import wait_until, wait_until_settled


class Observer:
    """Notes for each message how it ended, and what was counted of it by then."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool]] = []

    def __call__(self, subscription: Subscription, results: Results) -> None:
        ended = [(delivery, False) for delivery, _ in results.ended]
        for delivery, is_done in [*((one, True) for one in results.done), *ended]:
            number = delivery.message.data
            self.seen.append((subscription.consumer.name, number, is_done))


def handle(message: Message[Any]) -> None:
    if message.data < 0:
        raise Reject("less than nothing")


async def handle_async(message: Message[Any]) -> None:
    handle(message)


def handle_batch(messages: Sequence[Message[Any]]) -> None:
    for message in messages:
        handle(message)


def consumer(handler: Any, **options: Any) -> Consumer:
    return make_consumer(["a.b"], handler, name="c", options=options)


@pytest.mark.parametrize(
    "made",
    [consumer(handle), consumer(handle_async), consumer(handle_batch, batch=2)],
    ids=["sync", "async", "batch"],
)
def test_it_is_shown_how_each_message_ended(
    make_broker: MakeBroker, made: Consumer
) -> None:
    worker, observer = Worker(2), Observer()
    broker = make_broker(consumers=[made], get_worker=lambda: worker)
    broker.publish(Message("a.b", b"0"))
    wait_until_settled(broker)

    worker.observe(observer)
    for number in (1, -2):
        broker.publish(Message("a.b", str(number).encode()))
    wait_until(lambda: len(observer.seen) == 2)
    worker.observe(None)
    broker.publish(Message("a.b", b"3"))
    wait_until_settled(broker)

    assert sorted(observer.seen) == [("c", -2, False), ("c", 1, True)]


def test_it_is_shown_those_of_brokers_that_start_later(make_broker: MakeBroker) -> None:
    worker, observer = Worker(2), Observer()
    worker.observe(observer)

    broker = make_broker(consumers=[consumer(handle)], get_worker=lambda: worker)
    broker.publish(Message("a.b", b"1"))

    wait_until(lambda: observer.seen == [("c", 1, True)])


def test_one_that_raises_loses_nothing_and_is_told(make_broker: MakeBroker) -> None:
    recorder = Recorder()
    worker = Worker(2, hooks=[recorder])
    broker = make_broker(
        consumers=[consumer(handle)], hooks=[recorder], get_worker=lambda: worker
    )

    def fail(subscription: Subscription, results: Results) -> None:
        raise RuntimeError("a bug")

    worker.observe(fail)
    broker.publish(Message("a.b", b"1"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].succeeded == 1
    wait_until(lambda: [part for part, _ in recorder.named("failed")] == ["observer"])
