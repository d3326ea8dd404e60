"""What only the memory backend promises; the bus's own tests run on it too."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Settled, Settlement
from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import ACK, EXPIRED, Delivery
from django_gomq.bus.errors import ConfigurationError, NotRunningError
from django_gomq.bus.message import Message
from tests.backends.memory.opening import ignore, open_backend, subscribe


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0},
        {"capacity": None},
        {"max_delay": -1},
        {"max_delay": float("inf")},
        {"max_delay": "long"},
        {"max_delay": None},
        {"dead_letters": -1},
    ],
    ids=repr,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        MemoryBackend(**options)


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


def test_it_has_nobody_to_tell_how_a_delivery_ended() -> None:
    backend = open_backend()
    delivery = Delivery(Message("a.b"), 0)

    answers = backend.settle(
        [Settlement("c", delivery, ACK), Settlement("c", delivery, EXPIRED)]
    )

    assert answers == [Settled.DONE] * 2
    assert not backend.capabilities.settles


def test_before_its_reader_runs_it_takes_nothing() -> None:
    backend = open_backend()
    subscribe(backend, "a.b")

    with pytest.raises(NotRunningError):
        backend.publish(Message("a.b"), None)

    assert not backend.make_reader().is_up
    assert backend.queue_stats()["a.b"].published == 0


def test_it_may_be_closed_before_it_ran_and_twice() -> None:
    backend = open_backend()
    subscribe(backend, "a.b")
    reader = backend.make_reader()

    for _ in range(2):
        reader.stop_fetching()
        reader.stop()
        backend.close(1)

    assert reader.pending(9) == 0
