"""Many messages in one call: runs of equals go at once, and nobody can tell."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.backends.memory import MemoryBackend
from django_gomq.backends.memory.queues import EventQueue
from django_gomq.bus.backend import BackendContext
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.errors import (
    BrokerClosedError,
    ConfigurationError,
    MessageError,
    NoConsumerError,
    NotRunningError,
    PublishError,
    PublishTimeoutError,
    QueueFullError,
)
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.timers import Timers
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


def still(capacity: int, types: tuple[str, ...] = ("a.b", "a.c", "b.*")) -> Any:
    """Return a backend that is up, and whose queues nobody empties."""
    backend: Any = MemoryBackend(capacity=capacity)
    backend.open(
        BackendContext(
            broker="default",
            hooks=Hooks(),
            timers=Timers(ignore),
            is_bus_thread=lambda: False,
            run_soon=lambda _: False,
        )
    )
    for name, found, options in (
        ("c", types, {}),
        ("k", ("keys.x",), {"ordered_by_key": True}),
    ):
        consumer = make_consumer(found, ignore, name=name, options=options)
        backend.subscribe(Subscription("default", consumer, hooks=Hooks()))
    backend._dispatcher.loop.is_up = True
    return backend


def codes(answers: Answers) -> list[str | None]:
    return [None if one is None else one.code for one in answers]


def queued(backend: Any) -> dict[str, list[Message[Any]]]:
    return {queue.label: queue.take(10_000) for queue in backend._queues.all()}


def delayed(backend: Any) -> list[Message[Any]]:
    return [message for _, message in backend._publisher._delayed.take_all()]


def numbered(count: int, event: str = "a.b", **fields: Any) -> list[Message[Any]]:
    return [Message(event, b"%d" % number, **fields) for number in range(count)]


# ------------------------------------------------------------------ as one by one


MIXED = st.lists(
    st.builds(
        Message,
        st.sampled_from(["a.b", "a.b", "a.c", "b.x", "nobody.x", "keys.x"]),
        delay=st.sampled_from([0.0, 0.0, 0.0, 60.0]),
        priority=st.sampled_from([5, 5, 5, 9]),
    ).filter(lambda m: m.type != "keys.x" or (not m.delay and m.priority == 5)),
    max_size=25,
)


@given(MIXED, st.integers(1, 8), st.booleans())
@settings(deadline=None, max_examples=200)
def test_many_are_answered_and_queued_as_one_by_one(
    messages: list[Message[Any]], capacity: int, twice: bool
) -> None:
    many, single = still(capacity), still(capacity)
    if twice:
        messages = messages * 2

    answers = many.publish_many(messages, None)

    expected = [single._try_publish(one, None) for one in messages]
    assert codes(answers) == codes(expected)
    assert many.queue_stats() == single.queue_stats()
    assert delayed(many) == delayed(single)
    assert queued(many) == queued(single)


def test_nothing_is_nothing() -> None:
    assert still(1).publish_many([], None) == []


def test_messages_are_queued_in_the_order_they_were_given() -> None:
    backend, messages = still(100), numbered(20)

    answers = backend.publish_many(messages, None)

    assert answers == [None] * 20
    assert queued(backend)["a.b"] == messages


def test_a_run_fills_the_room_there_is_and_the_rest_is_refused() -> None:
    backend, messages = still(3), numbered(5)

    answers = backend.publish_many(messages, None)

    assert codes(answers) == [None] * 3 + ["queue_full"] * 2
    assert queued(backend)["a.b"] == messages[:3]


def test_a_full_queue_refuses_its_own_type_and_no_other() -> None:
    backend = still(2)
    messages = [*numbered(3), *numbered(2, "a.c"), *numbered(1)]

    answers = backend.publish_many(messages, None)

    assert codes(answers) == [None, None, "queue_full", None, None, "queue_full"]


def test_what_nobody_wants_is_refused_in_the_midst_of_others() -> None:
    messages = [*numbered(2), *numbered(2, "nobody.x"), *numbered(1)]

    answers = still(9).publish_many(messages, None)

    assert [type(one) for one in answers] == [
        type(None),
        type(None),
        NoConsumerError,
        NoConsumerError,
        type(None),
    ]


def test_delayed_messages_wait_apart_and_hold_their_room() -> None:
    backend = still(4)
    messages = [*numbered(2), *numbered(2, delay=60.0), *numbered(1)]

    answers = backend.publish_many(messages, None)

    stats = backend.queue_stats()["a.b"]
    assert codes(answers) == [None] * 4 + ["queue_full"]
    assert (stats.depth, stats.delayed, stats.published) == (2, 2, 4)


def test_the_list_of_the_caller_is_neither_changed_nor_kept() -> None:
    backend, messages = still(9), numbered(3)
    given_ones = list(messages)

    backend.publish_many(messages, None)
    messages.clear()

    assert queued(backend)["a.b"] == given_ones


def test_a_dispatcher_that_is_down_refuses_them_all() -> None:
    backend = still(9)
    backend.publish_many(numbered(1), None)
    backend._dispatcher.loop.is_up = False

    answers = backend.publish_many(numbered(3), None)

    assert [type(one) for one in answers] == [NotRunningError] * 3
    assert backend.queue_stats()["a.b"].published == 1


def test_a_close_refuses_them_all() -> None:
    backend = still(9)
    backend.publish_many(numbered(1), None)
    backend.stop_publishing()

    answers = backend.publish_many(numbered(3), None)

    assert [type(one) for one in answers] == [BrokerClosedError] * 3


def test_a_close_in_the_midst_of_a_run_refuses_the_rest() -> None:
    backend, answers = still(2), list[Any]()

    def publish() -> None:
        answers.extend(backend.publish_many(numbered(5), 30))

    def close() -> None:
        queue = backend._queues.open("a.b")
        wait_until(lambda: queue._waiters)  # two are in, the third waits
        backend.stop_publishing()

    run_threads(publish, close)

    assert codes(answers) == [None, None, "closed", "closed", "closed"]


def test_room_that_comes_while_one_waits_is_used_for_the_rest() -> None:
    backend, answers, taken = still(2), list[Any](), list[Message[Any]]()
    messages = numbered(9)

    def publish() -> None:
        answers.extend(backend.publish_many(messages, 30))

    def drain() -> None:
        queue = backend._queues.open("a.b")
        while len(taken) < 9:
            batch = queue.take(10)
            taken.extend(batch)
            queue.end_dispatch(len(batch))

    run_threads(publish, drain)

    assert codes(answers) == [None] * 9
    assert taken == messages


def test_a_timeout_bounds_the_call_and_names_itself() -> None:
    backend = still(2)
    backend.publish_many(numbered(2), None)
    began = time.monotonic()

    answers = backend.publish_many(numbered(20), 0.05)

    assert 0.05 <= time.monotonic() - began < LONG / 2
    assert isinstance(answers[0], PublishTimeoutError)
    # The time is up: for what follows nobody waits.
    assert {type(one) for one in answers[1:]} <= {PublishTimeoutError, QueueFullError}
    assert len(answers) == 20


def test_an_order_by_key_keeps_the_order_of_many() -> None:
    backend = still(9)
    messages = [Message[Any]("keys.x", key=key) for key in "abcabc"]

    answers = backend.publish_many(messages, None)

    assert answers == [None] * 6
    assert queued(backend)["keys.x"] == messages


# -------------------------------------------------------------------- on a broker


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
    handled: list[int] = []
    broker.consume("a.b", lambda m: handled.append(m.data), name="c")

    late, soon = numbered(3, delay=0.03), numbered(6)[3:]
    broker.publish_many([*late, *soon])

    wait_until(lambda: handled == [3, 4, 5, 0, 1, 2])
    wait_until_settled(broker)


def test_a_handler_that_publishes_many_does_not_wait(make_broker: MakeBroker) -> None:
    broker, answers = make_broker(capacity=2), list[Any]()
    broker.consume("b.x", ignore, name="gate", overflow="backpressure", capacity=1)
    broker.pause("gate")

    def handle(message: Message[Any]) -> None:
        answers.extend(broker.publish_many(numbered(9, "b.x"), timeout=LONG))

    broker.consume("a.b", handle, name="c")
    broker.publish(Message("a.b"))

    wait_until(lambda: len(answers) == 9)  # sooner than the timeout
    assert {type(one) for one in answers} == {type(None), QueueFullError}
    assert broker.stats().queues["b.x"].refused == {
        "queue_full": sum(one is not None for one in answers)
    }


def test_watchers_see_each_of_many(make_broker: MakeBroker) -> None:
    watcher = Watcher()
    broker = make_broker(hooks=[watcher], capacity=2)
    broker.consume("a.b", ignore, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)

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
        for step in range(60):
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

    bodies = Counter(body for one in accepted for body in one)
    assert Counter(handled) == bodies
    assert set(bodies.values()) == {1}
    queues = [broker.stats().queues[event] for event in ("a.b", "a.c")]
    assert sum(one.published for one in queues) == len(bodies)
    assert sum(sum(one.refused.values()) for one in queues) == sum(refused)
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


# ------------------------------------------------------------------ interrupted


@pytest.mark.parametrize("is_taken", [True, False])
def test_an_interrupted_put_answers_for_what_the_queue_took(
    is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, answers = still(capacity=10), list[PublishError | None]()
    backend.publish_many(numbered(1), None)  # the queue is there
    put = EventQueue.put_many_permitted

    def interrupt(queue: Any, messages: Any, priority: int) -> None:
        if is_taken:
            put(queue, messages, priority)
        raise KeyboardInterrupt

    monkeypatch.setattr(EventQueue, "put_many_permitted", interrupt)
    with pytest.raises(KeyboardInterrupt):
        backend.publish_into(answers, numbered(3), None)

    assert answers == ([None] * 3 if is_taken else [])
    assert len(queued(backend)["a.b"]) == (4 if is_taken else 1)
