"""How long attempts in work have been running, and which threads are taken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ConsumerStats
from django_gomq.bus.worker.worker import Worker

from .waiting import LONG, wait_until


class Gate:
    """Holds handlers until it is opened."""

    def __init__(self) -> None:
        self.entered, self.is_open = threading.Semaphore(0), Event()

    def sync(self, message: object) -> None:
        self.entered.release()
        assert self.is_open.wait(LONG)

    async def asynchronous(self, message: object) -> None:
        self.entered.release()
        await asyncio.to_thread(self.is_open.wait, LONG)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.is_open.set()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(threads=2)
    yield made
    made.stop(timeout=LONG)


@pytest.fixture
def broker(worker: Worker, gate: Gate) -> Iterator[Broker]:
    made = Broker(lambda: MemoryBackend(capacity=10), get_worker=lambda: worker)
    yield made
    gate.is_open.set()
    made.close(timeout=LONG)


def numbers_of(broker: Broker, consumer: str) -> ConsumerStats:
    return broker.stats().consumers[consumer]


Register = Callable[[Broker, Gate], object]


@pytest.mark.parametrize(
    "register",
    [
        lambda broker, gate: broker.consume("a", gate.sync, name="c"),
        lambda broker, gate: broker.consume("a", gate.sync, name="c", batch=3),
        lambda broker, gate: broker.consume("a", gate.asynchronous, name="c"),
    ],
    ids=["sync", "batch", "async"],
)
def test_an_attempt_in_work_grows_older_until_it_ends(
    broker: Broker, gate: Gate, register: Register
) -> None:
    register(broker, gate)
    broker.consume("a", lambda _: None, name="idle")
    broker.start()
    # A thread that was told of the start takes a look.
    wait_until(lambda: numbers_of(broker, "c").running_seconds == 0)

    broker.publish(Message(type="a"))
    assert gate.entered.acquire(timeout=LONG)
    before = numbers_of(broker, "c").running_seconds
    wait_until(lambda: numbers_of(broker, "c").running_seconds > before + 0.01)
    wait_until(lambda: numbers_of(broker, "idle").running_seconds == 0)

    gate.is_open.set()
    wait_until(lambda: numbers_of(broker, "c").running_seconds == 0)


def test_of_several_attempts_the_oldest_counts(broker: Broker, gate: Gate) -> None:
    broker.consume("a", gate.sync, name="c", concurrency=2)
    broker.publish(Message(type="a"))
    assert gate.entered.acquire(timeout=LONG)
    wait_until(lambda: numbers_of(broker, "c").running_seconds > 0.02)

    broker.publish(Message(type="a"))
    assert gate.entered.acquire(timeout=LONG)

    assert numbers_of(broker, "c").running_seconds > 0.02


def test_threads_that_serve_somebody_are_a_part_of_all(
    broker: Broker, worker: Worker, gate: Gate
) -> None:
    broker.consume("a", gate.sync, name="c", concurrency=2)
    broker.start()
    wait_until(lambda: worker.busy_ratio == 0)

    for ratio in (0.5, 1.0):
        broker.publish(Message(type="a"))
        assert gate.entered.acquire(timeout=LONG)
        wait_until(lambda ratio=ratio: worker.busy_ratio == ratio)  # type: ignore[misc]


def test_a_hung_attempt_still_runs_when_another_thread_has_its_place(
    broker: Broker, worker: Worker, gate: Gate
) -> None:
    broker.consume("a", gate.sync, name="c", timeout=0.01)

    broker.publish(Message(type="a"))

    wait_until(lambda: worker.alive == 3)
    assert numbers_of(broker, "c").running_seconds > 0.01
    wait_until(lambda: worker.busy_ratio == 0)


def test_a_queue_says_how_long_its_oldest_message_waits(
    broker: Broker, gate: Gate
) -> None:
    def age() -> float:
        return broker.stats().queues["a"].oldest_age

    broker.consume("a", gate.sync, name="c", capacity=1, overflow="backpressure")
    broker.publish(Message(type="a"))
    assert gate.entered.acquire(timeout=LONG)
    assert age() == 0

    broker.publish(Message(type="a", priority=2))
    wait_until(lambda: age() > 0.02)
    broker.publish(Message(type="a", priority=9))
    assert age() > 0.02

    gate.is_open.set()
    wait_until(lambda: age() == 0)


def test_threads_that_should_run_and_do_not_are_counted(
    broker: Broker, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(message: object) -> None: ...

    dead: Any = {
        "worker.pool.HandlerPool.dead": lambda _: [1, 2],
        "worker.async_loop.AsyncLoop.is_alive": False,
    }
    broker.consume("a", handle, name="c")

    def missing() -> dict[str, int]:
        with monkeypatch.context() as patch:
            for name, answer in dead.items():
                patch.setattr(f"django_gomq.bus.{name}", answer)
            return worker.missing_threads()

    assert missing() == {}
    broker.start()
    assert worker.missing_threads() == {}
    assert missing() == {"handler": 2, "event_loop": 1}
    worker.stop(timeout=LONG)
    assert missing() == {}
