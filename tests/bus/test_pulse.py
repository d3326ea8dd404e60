from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_gomq.bus.message import Message
from django_gomq.bus.worker import async_loop as pulse_module
from django_gomq.bus.worker.async_loop import LoopWatchdog
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


def block_until(release: threading.Lock, entered: list[int]) -> None:
    entered.append(1)
    release.acquire(timeout=LONG)


@pytest.fixture
def release() -> Iterator[threading.Lock]:
    lock = threading.Lock()
    lock.acquire()
    yield lock
    if lock.locked():
        lock.release()


def test_a_handler_that_blocks_the_loop_is_told_once_by_name_and_place(
    make_broker: MakeBroker, release: threading.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 0.05)
    monkeypatch.setattr(pulse_module, "BLOCKED_SECONDS", LONG)  # on its way there
    recorder, entered, ticks = Recorder(), list[int](), list[int]()

    async def block(message: Message[Any]) -> None:
        block_until(release, entered)

    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", block, name="blocks")
    broker.publish(Message("a.b"))
    wait_until(lambda: entered)
    monkeypatch.setattr(pulse_module, "BLOCKED_SECONDS", 1.0)
    wait_until(lambda: recorder.named("loop_blocked"))
    worker = broker._current_runtime()._worker
    lag = worker.loop_lag
    worker.timers.every_second(lambda: ticks.append(1))
    wait_until(lambda: len(ticks) > 1)
    monkeypatch.setattr(pulse_module, "BLOCKED_SECONDS", LONG)
    looks = len(ticks)
    wait_until(lambda: len(ticks) > looks + 1)  # one that had begun has ended

    release.release()
    wait_until_settled(broker)

    ((consumer, seconds, where),) = recorder.named("loop_blocked")
    assert consumer == "blocks"
    assert seconds >= 1.0
    assert lag >= seconds
    assert "block_until (" in where
    assert __file__ in where
    wait_until(lambda: worker.loop_lag == 0.0)


def test_a_handler_that_awaits_is_not_told(
    make_broker: MakeBroker, release: threading.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 0.05)
    monkeypatch.setattr(pulse_module, "BLOCKED_SECONDS", LONG)
    recorder, entered, ticks = Recorder(), list[int](), list[int]()

    async def wait(message: Message[Any]) -> None:
        await asyncio.to_thread(block_until, release, entered)

    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", wait, name="waits")
    broker.publish(Message("a.b"))
    worker = broker._current_runtime()._worker
    worker.timers.every_second(lambda: ticks.append(1))
    wait_until(lambda: len(ticks) > 3)
    wait_until(lambda: worker.loop_lag == 0.0)
    release.release()
    wait_until_settled(broker)

    assert recorder.named("loop_blocked") == []


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "BLOCKED_SECONDS", 0.0)


def test_each_block_is_told_once(at_once: None) -> None:
    loop = asyncio.new_event_loop()
    watchdog = LoopWatchdog(loop, threading.current_thread())

    told = [watchdog.beat() for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    told_again = [watchdog.beat() for _ in range(3)]

    assert told == told_again == [False, True, False]
    loop.close()


def test_an_ended_loop_owes_no_answer() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    watchdog = LoopWatchdog(loop, threading.Thread())

    assert not watchdog.beat()
    assert watchdog.lag == 0.0
    assert watchdog.where() == "no longer known"
    assert watchdog.task() is None
