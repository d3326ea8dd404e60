"""Many messages in one call, on a whole broker."""

from __future__ import annotations

import functools
import threading
from collections import Counter, deque
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import (
    ConfigurationError,
    MessageError,
    PublishError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Watcher
from tests.bus.waiting import (
    LONG,
    fast_switching,
    run_threads,
    wait_until,
    wait_until_settled,
)

Answers = list[PublishError | None]


def ignore(_: object) -> None: ...


def codes(answers: Answers) -> list[str | None]:
    return [None if answer is None else answer.code for answer in answers]


def numbered(count: int, event: str = "a.b", **fields: Any) -> list[Message[Any]]:
    return [Message(event, b"%d" % number, **fields) for number in range(count)]


def test_they_are_handled_by_priority_and_in_order(make_broker: MakeBroker) -> None:
    broker, handled = make_broker(), list[tuple[int, int]]()
    broker.consume("a.b", lambda m: handled.append((m.priority, m.data)), name="c")
    broker.pause("c")

    low, high = numbered(10, priority=1), numbered(10, priority=8)
    assert broker.publish_many([*low, *high, *low]) == [None] * 30
    wait_until(lambda: broker.stats().consumers["c"].depth == 30)
    broker.resume("c")
    wait_until_settled(broker)

    numbers = list(range(10))
    assert handled == [
        *((8, number) for number in numbers),
        *((1, number) for number in numbers * 2),
    ]


@pytest.mark.parametrize(
    "wrong", [{"delay": 9999.0}, {"priority": 10}, {"key": ""}, {"body": "text"}]
)
def test_one_that_can_never_work_keeps_all_of_a_run_out(
    broker: Broker, wrong: dict[str, Any]
) -> None:
    broker.consume("a.b", ignore, name="c")
    broker.start()

    with pytest.raises(MessageError):
        broker.publish_many([*numbered(3), Message("a.b", **wrong), *numbered(3)])

    assert broker.stats().queues["a.b"].published == 0


def test_an_order_by_key_refuses_priority_before_anything_is_handed_over(
    broker: Broker,
) -> None:
    broker.consume("a.b", ignore, name="c", ordered_by_key=True)
    broker.start()

    with pytest.raises(ConfigurationError, match="ordered_by_key"):
        broker.publish_many([*numbered(3), Message("a.b", priority=9)])

    assert broker.stats().queues["a.b"].published == 0


def test_delays_of_many_are_kept(broker: Broker) -> None:
    handled: list[tuple[int, float]] = []

    def handle(message: Message[Any]) -> None:
        handled.append((message.data, Clock.monotonic()))

    broker.consume("a.b", handle, name="c")

    began = Clock.monotonic()
    late, soon = numbered(3, delay=0.2), numbered(6)[3:]
    broker.publish_many([*late, *soon])

    wait_until(lambda: len(handled) == 6)
    wait_until_settled(broker)
    assert sorted(number for number, _ in handled) == list(range(6))
    assert [number for number, _ in handled if number > 2] == [3, 4, 5]
    assert all(moment >= began + 0.2 for number, moment in handled if number < 3)


def test_a_handler_that_publishes_many_does_not_wait(make_broker: MakeBroker) -> None:
    broker, answers = make_broker(capacity=2), list[Any]()
    broker.consume("b.x", ignore, name="gate", overflow="backpressure", capacity=1)
    broker.pause("gate")

    def handle(message: Message[Any]) -> None:
        answers.extend(broker.publish_many(numbered(9, "b.x"), timeout=LONG))

    broker.consume("a.b", handle, name="c")
    broker.publish(Message("a.b"))

    wait_until(lambda: len(answers) == 9)  # sooner than the timeout
    assert {type(answer) for answer in answers} == {type(None), QueueFullError}
    assert broker.stats().queues["b.x"].refused == {
        "queue_full": sum(answer is not None for answer in answers)
    }


def test_watchers_see_each_of_many(make_broker: MakeBroker) -> None:
    watcher = Watcher()
    broker = make_broker(hooks=[watcher], capacity=2)
    broker.consume("a.b", ignore, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    wait_until(lambda: broker.stats().queues["a.b"].depth == 0)

    answers = broker.publish_many(numbered(3))

    assert codes(answers) == [None, None, "queue_full"]
    assert len(watcher.named("publishing")) == 4
    assert watcher.named("published") == [None, None, None, answers[2]]
    assert watcher.named("refused") == [("a.b", "queue_full")]


@pytest.mark.parametrize("timeout", [None, 0.001, 30])
def test_racing_publishers_of_many_get_exact_answers(
    make_broker: MakeBroker, timeout: float | None
) -> None:
    broker = make_broker(capacity=50)
    handled: deque[bytes] = deque()
    broker.consume(
        ["a.b", "a.c"],
        lambda m: handled.append(m.body),
        name="c",
        overflow="backpressure",
        capacity=20,
        concurrency=3,
    )
    accepted: list[list[bytes]] = [[] for _ in range(4)]
    refused = [0] * 4

    def publish(number: int) -> None:
        for step in range(20):
            messages = [
                Message[Any](
                    "a.b" if index < 15 else "a.c",
                    b"%d.%d.%d" % (number, step, index),
                    priority=5 + (index > 7),
                )
                for index in range(30)
            ]
            answers = broker.publish_many(messages, timeout=timeout)
            for message, answer in zip(messages, answers, strict=True):
                if answer is None:
                    accepted[number].append(message.body)
                else:
                    refused[number] += 1

    with fast_switching():
        run_threads(*(functools.partial(publish, number) for number in range(4)))
        wait_until_settled(broker)

    bodies = Counter(body for bodies in accepted for body in bodies)
    assert Counter(handled) == bodies
    assert set(bodies.values()) == {1}
    queues = [broker.stats().queues[event] for event in ("a.b", "a.c")]
    assert sum(queue.published for queue in queues) == len(bodies)
    assert sum(sum(queue.refused.values()) for queue in queues) == sum(refused)
    assert timeout != 30 or not any(refused)


def test_two_callers_wait_for_room_and_both_come_in(make_broker: MakeBroker) -> None:
    broker, handled = make_broker(capacity=1), deque[int]()
    go_on = threading.Event()

    def handle(message: Message[Any]) -> None:
        go_on.wait(LONG)
        handled.append(message.data)

    broker.consume("a.b", handle, name="c", overflow="backpressure", capacity=1)

    def publish() -> None:
        assert broker.publish_many(numbered(5), timeout=LONG) == [None] * 5

    run_threads(publish, publish, go_on.set)

    wait_until_settled(broker)
    assert sorted(handled) == sorted([*range(5), *range(5)])
