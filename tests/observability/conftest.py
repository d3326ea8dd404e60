from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker

MakeBroker = Callable[..., Broker]


@pytest.fixture
def make_broker() -> Iterator[MakeBroker]:
    """Makes memory brokers; all are closed at the end, whatever they hold."""
    made: list[Broker] = []

    def make(alias: str = "default", *, capacity: int = 1000, **options: Any) -> Broker:
        broker = Broker(lambda: MemoryBackend(capacity=capacity), alias, **options)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close(timeout=0)


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    return make_broker()
