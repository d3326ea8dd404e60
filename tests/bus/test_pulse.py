from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from django_gomq.bus.message import Message
from django_gomq.bus.worker import async_loop as pulse_module
from django_gomq.bus.worker.async_loop import LoopWatchdog
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


def block_until(release: threading.Event) -> None:
    release.wait(LONG)


def test_a_handler_that_blocks_the_loop_is_told_once_by_name_and_place(
    make_broker: MakeBroker,
) -> None:
    recorder, release, ticks = Recorder(), threading.Event(), list[int]()

    async def block(message: Message[Any]) -> None:
        block_until(release)

    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", block, name="blocks")
    broker.publish(Message("a.b"))
    wait_until(lambda: recorder.named("loop_blocked"))
    worker = broker._current_runtime()._worker
    lag = worker.loop_lag
    worker.timers.every_second(lambda: ticks.append(1))
    wait_until(lambda: len(ticks) > 1)

    release.set()
    wait_until_settled(broker)

    ((consumer, seconds, where),) = recorder.named("loop_blocked")
    assert consumer == "blocks"
    assert seconds >= 1.0
    assert lag >= seconds
    assert "block_until (" in where
    assert __file__ in where
    wait_until(lambda: worker.loop_lag == 0.0)


def test_a_handler_that_awaits_is_not_told(make_broker: MakeBroker) -> None:
    recorder, release, ticks = Recorder(), threading.Event(), list[int]()

    async def wait(message: Message[Any]) -> None:
        await asyncio.to_thread(block_until, release)

    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", wait, name="waits")
    broker.publish(Message("a.b"))
    broker._current_runtime()._worker.timers.every_second(lambda: ticks.append(1))
    wait_until(lambda: len(ticks) > 3)
    release.set()
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
