"""What only the memory backend promises; the bus's own tests run on it too."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import BackendContext, Settled
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import (
    ACK,
    EXPIRED,
    DeadLettered,
    Delivery,
    DropReason,
    RetryAfter,
)
from django_gomq.bus.errors import ConfigurationError, NotRunningError
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.timers import Timers


def ignore(_: object) -> None: ...


@pytest.fixture
def backend() -> MemoryBackend:
    made = MemoryBackend(capacity=5, max_delay=10, dead_letters=2)
    made.open(
        BackendContext(
            broker="default",
            hooks=Hooks(),
            timers=Timers(ignore),
            is_bus_thread=lambda: False,
            run_soon=lambda _: False,
        )
    )
    return made


@pytest.fixture
def subscription(backend: MemoryBackend) -> Subscription:
    consumer = make_consumer(("a.b",), ignore, name="c", options={})
    made = Subscription("default", consumer, hooks=Hooks())
    backend.subscribe(made)
    return made


def taken(subscription: Subscription) -> Delivery:
    subscription.offer([Delivery(Message("a.b"), 0)])
    (delivery,) = subscription.take(1)
    return delivery


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0},
        {"capacity": None},
        {"max_delay": -1},
        {"max_delay": float("inf")},
        {"max_delay": "long"},
        {"dead_letters": -1},
    ],
    ids=repr,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        MemoryBackend(**options)


def test_a_retry_is_kept_with_its_room_and_its_attempts(
    backend: MemoryBackend, subscription: Subscription
) -> None:
    delivery = taken(subscription)

    answers = backend.settle(subscription, [(delivery, RetryAfter(60, ValueError()))])

    stats = subscription.stats()
    assert answers == [Settled.KEPT]
    assert (stats.scheduled, stats.depth) == (1, 0)
    assert subscription.channel.held == 1


def test_a_backend_derived_from_it_may_extend_publish() -> None:
    published: list[Message[Any]] = []

    class Noting(MemoryBackend):
        def publish(self, message: Message[Any], timeout: float | None) -> None:
            published.append(message)
            super().publish(message, timeout)

    broker = Broker(Noting)
    broker.consume("a.b", ignore, name="c")
    message: Message[Any] = Message("a.b")

    broker.publish(message)

    assert published == [message]
    assert broker.close().is_clean


def test_what_is_done_is_forgotten(
    backend: MemoryBackend, subscription: Subscription
) -> None:
    delivery = taken(subscription)

    answers = backend.settle(subscription, [(delivery, ACK), (delivery, EXPIRED)])

    assert answers == [Settled.DONE] * 2
    assert backend.ack(subscription, [delivery]) == []
    assert backend.dead_letters() == []


def test_the_last_dead_letters_are_kept(
    backend: MemoryBackend, subscription: Subscription
) -> None:
    for number in range(3):
        error = DeadLettered(ValueError(number))
        backend.settle(subscription, [(taken(subscription), error)])

    assert [one.error for one in backend.dead_letters()] == [
        "ValueError: 1",
        "ValueError: 2",
    ]


def test_what_is_released_is_dropped_as_there_is_nowhere_to_give_it_back_to(
    backend: MemoryBackend, subscription: Subscription
) -> None:
    backend.release(subscription, [taken(subscription)])

    assert subscription.stats().dropped == {("a.b", DropReason.SHUTDOWN): 1}
    assert subscription.channel.held == 0


def test_before_its_reader_runs_it_takes_nothing(
    backend: MemoryBackend, subscription: Subscription
) -> None:
    with pytest.raises(NotRunningError):
        backend.publish(Message("a.b"), None)

    assert not backend.is_reading
    assert backend.queue_stats()["a.b"].published == 0


def test_it_may_be_closed_unopened_messages_or_not_and_twice(
    backend: MemoryBackend, subscription: Subscription
) -> None:
    for _ in range(2):
        backend.stop_publishing()
        backend.stop_reading()
        backend.close()

    assert backend.pending(9) == 0
