from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event
from typing import Any, Protocol

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.hooks import Hook
from tests.bus.interrupting import interruptible
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG


class MakeBroker(Protocol):
    """Makes a broker on memory, which is closed after the test."""

    def __call__(
        self,
        *,
        capacity: int = 1000,
        max_delay: float = 300.0,
        dead_letters: int = 1000,
        threads: int = 8,
        consumers: Iterable[Consumer] = (),
        hooks: Sequence[Hook] = (),
        may_start: Callable[[], bool] = ...,
        **options: Any,
    ) -> Broker: ...


@pytest.fixture
def make_broker() -> Iterator[MakeBroker]:
    brokers: list[Broker] = []

    def make(
        *,
        capacity: int = 1000,
        max_delay: float = 300.0,
        dead_letters: int = 1000,
        threads: int = 8,
        **options: Any,
    ) -> Broker:
        broker = Broker(
            lambda: MemoryBackend(
                capacity=capacity, max_delay=max_delay, dead_letters=dead_letters
            ),
            threads=threads,
            **options,
        )
        for hook in options.get("hooks", ()):
            if isinstance(hook, Recorder):
                hook.flush = lambda: broker.hooks.flush(LONG)
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close(timeout=0)


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    return make_broker()


@pytest.fixture
def interrupts() -> Iterator[Event]:
    """A SIGVTALRM raises Interrupted, once, if this was set."""
    with interruptible() as armed:
        yield armed
