"""What an operator wants of a consumer, before and after its broker starts."""

from __future__ import annotations

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.waiting import wait_until


def test_a_consumer_is_as_an_operator_wants_it(broker: Broker) -> None:
    seen: list[bytes] = []
    broker.consume(["a.b"], lambda message: seen.append(message.body), name="c")

    broker.apply("c", ConsumerState(paused=True, capacity=7))
    broker.publish(Message("a.b", b"1"))

    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    stats = broker.stats().consumers["c"]
    assert (stats.paused, stats.capacity, seen) == (True, 7, [])
    broker.apply("c", ConsumerState())  # nothing is wanted: it stays so
    assert broker.stats().consumers["c"].paused

    broker.apply("c", ConsumerState(paused=False))

    wait_until(lambda: seen == [b"1"])


def test_what_is_wanted_can_be_known_before_a_start(make_broker: MakeBroker) -> None:
    seen: list[bytes] = []
    broker = make_broker()
    broker.consume(["a.b"], lambda message: seen.append(message.body), name="c")
    broker.on_start = lambda found: found.apply("c", ConsumerState(paused=True))

    broker.publish(Message("a.b", b"1"))

    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    assert seen == []


def test_it_is_called_once_for_each_start(make_broker: MakeBroker) -> None:
    calls: list[Broker] = []
    broker = make_broker()
    broker.consume(["a.b"], print, name="c")
    broker.on_start = calls.append

    broker.start()
    broker.start()

    assert calls == [broker]
