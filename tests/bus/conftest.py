from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event
from typing import Any, Protocol

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.hooks import Hook
from django_gomq.bus.runtime import STOP_SECONDS
from django_gomq.bus.worker.worker import Worker
from tests.bus.interrupting import interruptible
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until


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
    workers: list[Worker] = []  # of the tests; a broker stops only its own

    def make(
        *,
        capacity: int = 1000,
        max_delay: float = 300.0,
        dead_letters: int = 1000,
        threads: int = 8,
        **options: Any,
    ) -> Broker:
        if get_worker := options.get("get_worker"):

            def get_remembered() -> Worker:
                workers.append(get_worker())
                return workers[-1]

            options["get_worker"] = get_remembered
        broker = Broker(
            lambda: MemoryBackend(
                capacity=capacity, max_delay=max_delay, dead_letters=dead_letters
            ),
            threads=threads,
            **options,
        )
        for hook in options.get("hooks", ()):
            if isinstance(hook, Recorder):
                hook.flush = lambda: wait_until(lambda: broker.hooks.flush(LONG))
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close(timeout=0)
    for worker in workers:
        worker.stop(timeout=STOP_SECONDS)


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    return make_broker()


@pytest.fixture
def interrupts() -> Iterator[Event]:
    """A SIGVTALRM raises Interrupted, once, if this was set."""
    with interruptible() as armed:
        yield armed
