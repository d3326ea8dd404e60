"""What a backend need not write, and what the bus does when one fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Backend, Settled
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import Delivery, Outcome
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import wait_until


class Bare(MemoryBackend):
    """Publishes and settles, and leaves all that is optional to the base class."""

    extend = Backend.extend
    is_reading = Backend.is_reading
    pending = Backend.pending
    publish_many = Backend.publish_many
    publish_into = Backend.publish_into
    dead_letters = Backend.dead_letters
    queue_stats = Backend.queue_stats


class Away(MemoryBackend):
    """A runner that goes away before it hears of a failure."""

    def settle(
        self,
        subscription: Subscription,
        settlements: Sequence[tuple[Delivery, Outcome]],
    ) -> list[Settled]:
        raise ConnectionResetError("gone")


def fail(message: Message[Any]) -> None:
    raise ValueError(message.id)


def test_what_a_backend_does_not_say_is_nothing() -> None:
    broker = Broker(Bare, declared=["a.b"])
    broker.consume("a.b", print, name="c")

    stats = broker.stats()

    assert broker.dead_letters() == []
    assert stats.queues["a.b"].depth == 0
    assert stats.queues["a.b"].capacity == 0
    assert not stats.reader_up
    assert broker.close(timeout=1).is_clean


def test_a_backend_may_publish_many_one_by_one() -> None:
    broker = Broker(lambda: Bare(capacity=2))
    broker.consume("a.b", print, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    broker.publish(Message("a.b"))
    subscription = broker._current_runtime().subscription("c")
    wait_until(lambda: len(subscription.channel) == 1)
    messages = [Message[Any](event) for event in ("a.b", "x.y", "a.b", "a.b")]

    answers = broker.publish_many(messages)

    assert [None if one is None else one.code for one in answers] == [
        None,
        "no_consumer",
        None,
        "queue_full",
    ]
    broker.close(timeout=0)


def test_a_backend_without_leases_answers_that_they_are_kept() -> None:
    broker = Broker(Bare)
    broker.consume("a.b", print, name="c")
    life = broker._current_runtime()
    delivery = Delivery(Message("a.b"), 0)

    answers = life.backend.extend(life.subscription("c"), [delivery])

    assert answers == [Settled.DONE]


def test_a_backend_that_cannot_settle_costs_no_room_and_no_thread() -> None:
    recorder = Recorder()
    broker = Broker(Away, hooks=[recorder])
    broker.consume("a.b", fail, name="c", retry=Retry(attempts=2), capacity=1)

    broker.publish(Message("a.b"))

    wait_until(lambda: broker.stats().is_quiet and broker.stats().consumers["c"])
    counts = broker._current_runtime().subscription("c").counts
    wait_until(lambda: counts.lost_leases["a.b"] == 1)
    assert broker.stats().consumers["c"].retries == 0
    assert broker._current_runtime().subscription("c").channel.held == 0
    broker.close(timeout=1)


def test_a_message_is_checked_for_what_its_queue_excludes(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    broker.consume("a.b", print, name="c", ordered_by_key=True)

    with pytest.raises(ConfigurationError, match="ordered_by_key"):
        broker.check(Message("a.b", priority=9))
