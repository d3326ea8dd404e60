"""What another part of the bus has a handler thread do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_gomq.bus.message import Message
from django_gomq.bus.worker import worker as worker_module
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.ready_queue import ReadyQueue
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


@pytest.fixture
def _no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread be woken once more, in case that a call was lost."""
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 10 * LONG)


@pytest.fixture
def worker(_no_ticks: None) -> Iterator[Worker]:
    worker = Worker(1)
    worker.start()
    wait_until(lambda: len(worker._ready._sleepers) == 1)
    yield worker
    worker.stop(5)


def test_an_errand_that_fails_is_reported_and_ends_no_thread() -> None:
    def fail() -> None:
        raise OSError("injected")

    recorder = Recorder()
    worker = Worker(2, hooks=[recorder])
    worker.start()
    wait_until(lambda: worker.run_soon(fail))
    wait_until(lambda: recorder.named("failed"))
    wait_until(lambda: len(worker._ready._sleepers) == 2)

    assert worker.alive == 2
    assert not worker._ready.expects_caller
    worker.stop(5)


def test_what_an_errand_makes_ready_is_served_by_its_own_thread(worker: Worker) -> None:
    threads: list[int] = []
    ready: ReadyQueue[Any] = worker._ready
    another = threading.Lock()  # as a thread that sleeps until it is released
    another.acquire()
    ready._sleepers.appendleft(another)

    def note() -> None:
        threads.append(threading.get_ident())

    def lead_on() -> None:
        note()
        ready.add(note)

    assert worker.run_soon(lead_on)

    wait_until(lambda: len(threads) == 2)
    assert threads[0] == threads[1]
    assert another.locked()


class Resting(Environment):
    """Counts how often a thread said that it has nothing to do."""

    def __init__(self) -> None:
        self.rests = 0

    def thread_idle(self) -> None:
        self.rests += 1


@pytest.mark.usefixtures("_no_ticks")
def test_a_thread_that_only_runs_errands_is_idle_for_the_host(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", 10 * LONG)
    environment = Resting()
    worker = Worker(1, environment=environment)
    broker = make_broker(get_worker=lambda: worker)
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()
    wait_until(lambda: worker._ready._sleepers and not worker._ready)
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", 0.1)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    def run_errand_and_look() -> int:
        worker.run_soon(lambda: None)
        return environment.rests

    wait_until(run_errand_and_look)

    assert environment.rests == 1
    worker.stop(5)
