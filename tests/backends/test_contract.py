"""What a backend need not write, and what the bus gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    ConsumerState,
    HistoryFilter,
    Settled,
    Settlement,
)
from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import (
    ConfigurationError,
    MessageError,
    NoConsumerError,
    PublishError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.registry import Registry
from django_gomq.bus.stats import ServerSample
from django_gomq.testing.conformance.site import wait_until


def handle(message: object) -> None:
    pass


class Bare(Backend):
    """Writes what must be written, and nothing else."""

    name: ClassVar[str] = "bare"
    capabilities = Capabilities(durable=True)

    def __init__(self) -> None:
        self.published: list[str] = []

    def open(self, context: BackendContext) -> None:
        self.context = context

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        self.published += [message.type for message in messages]
        return [
            NoConsumerError("nobody") if message.type == "x.y" else None
            for message in messages
        ]

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return [Settled.DONE] * len(settlements)


def test_a_backend_need_not_write_more_than_three_methods() -> None:
    backend = Bare()
    broker = Broker(lambda: backend, source="shop")
    broker.consume("a.b", print, name="c")

    assert broker.setup() == []
    broker.start()
    broker.publish(Message("a.b"))
    with pytest.raises(NoConsumerError):
        broker.publish(Message("x.y"))
    wait_until(lambda: broker.stats().reader_up)

    assert backend.published == ["a.b", "x.y"]
    assert broker.stats().server == ServerSample()
    assert broker.stats().queues["x.y"].unconsumed == 1
    assert broker.dead_letters() == []
    assert broker.discard(["none"]) == 0
    assert broker.close(timeout=1).is_clean


def test_what_a_backend_leaves_out_means_nothing() -> None:
    backend, delivery = Bare(), Delivery(Message("a.b"), 0.0)

    assert backend.check(()) == []
    assert list(backend.fetch(())) == []
    assert backend.extend([delivery]) == [Settled.DONE]
    backend.release([delivery])
    backend.wake()
    assert backend.dead_letters() == []
    assert (backend.replay(["x"]), backend.discard(["x"])) == (0, 0)
    assert (backend.stats(), backend.queue_stats()) == (ServerSample(), {})
    assert backend.desired_state() == {}
    assert backend.replay_history("c", HistoryFilter(), dry_run=False) == 0
    assert (backend.prune(0.0), backend.remove("c", discard=False)) == (0, 0)
    with pytest.raises(NotImplementedError):
        backend.publish_in_transaction([Message("a.b")], "default")
    with pytest.raises(NotImplementedError):
        backend.note_handled([delivery])
    with pytest.raises(ConfigurationError, match="keeps no desired state for 'c'"):
        backend.desire("c", ConsumerState(paused=True))


def test_kept_events_are_meant_by_their_types() -> None:
    assert HistoryFilter().has("a.b")
    assert HistoryFilter(patterns=(Pattern("x.*"), Pattern("a.b"))).has("a.b")
    assert not HistoryFilter(patterns=(Pattern("x.*"),)).has("a.b")


def test_a_durable_broker_asks_for_names_that_were_written() -> None:
    registry = Registry()
    registry.consumer("a.b")(handle)
    [consumer] = registry.consumers()

    Capabilities().check(consumer)
    with pytest.raises(ConfigurationError, match=r'write name="backends\.handle"'):
        Capabilities(durable=True).check(consumer)


def test_a_backend_that_keeps_nothing_has_nothing_to_rename() -> None:
    consumer = make_consumer(["a.b"], handle, name="c", options={"aliases": ["o"]})

    Capabilities().check(consumer)


def test_a_backend_is_told_where_it_is() -> None:
    one, two = Bare(), Bare()
    for backend in (one, two):
        broker = Broker(lambda: backend, "orders", source="shop")  # noqa: B023
        assert broker.backend_name == "bare"
        broker.close(0)

    assert (one.context.broker, one.context.source) == ("orders", "shop")
    assert one.context.owner != two.context.owner


def test_a_server_that_pushes_is_told_what_found_no_room() -> None:
    backend = Bare()
    broker = Broker(lambda: backend)
    broker.consume("a.b", print, name="c", capacity=3)
    broker.pause("c")
    inbox = backend.context.inbox
    deliveries = [Delivery(Message("a.b", b"%d" % n), 0.0, token=n) for n in range(5)]

    assert inbox.wanted("c") == 0  # it is paused
    rest = inbox.accept("c", deliveries)

    assert list(rest) == deliveries[3:]
    assert broker.stats().consumers["c"].depth == 3
    assert inbox.withdraw("c", lambda each: each.token == 1, 0.0) == []
    assert broker.stats().consumers["c"].depth == 2
    assert broker.stats().consumers["c"].unaccounted == 0
    broker.close(0)


def test_what_is_not_promised_is_refused_with_a_way_out() -> None:
    broker = Broker(Bare)
    broker.consume("a.b", print, name="c")

    with pytest.raises(ConfigurationError, match=r"has no priorities.*route 'a\.b'"):
        broker.publish(Message("a.b", priority=9))
    with pytest.raises(MessageError, match=r"takes up to 0 s.*route it to"):
        broker.publish(Message("a.b", delay=1.0))
    with pytest.raises(ConfigurationError, match="publish after its commit"):
        broker.publish_in_transaction([Message("a.b")], "default")
    with pytest.raises(ConfigurationError, match="'d': this backend has no order"):
        broker.consume("a.b", print, name="d", ordered_by_key=True)
    with pytest.raises(ConfigurationError, match="'s': start='earliest' needs kept"):
        broker.consume("a.b", print, name="s", start="earliest")
    with pytest.raises(ConfigurationError, match="'n': this backend cannot rename"):
        broker.consume("a.b", print, name="n", aliases=["o"])
    with pytest.raises(ConfigurationError, match="drop_oldest"):
        broker.consume("a.b", print, name="e", overflow="drop_oldest")
    broker.close(0)
