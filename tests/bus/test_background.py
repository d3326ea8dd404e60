"""Tasks that async handlers start and do not wait for."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until_settled

kept: set[asyncio.Task[Any]] = set()  # the loop keeps no reference


def start(coroutine: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    kept.add(task)
    task.add_done_callback(kept.discard)


async def work_for_ever(cancelled: threading.Event) -> None:
    try:
        await asyncio.sleep(LONG)
    except asyncio.CancelledError:
        await asyncio.sleep(0)  # it cleans up
        cancelled.set()
        raise


def test_a_drain_waits_for_tasks_that_handlers_have_started(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.drain.BACKGROUND_SECONDS", LONG)
    may_end, done = threading.Event(), threading.Event()

    async def work() -> None:
        await asyncio.to_thread(may_end.wait, LONG)
        done.set()

    async def handle(message: Message[Any]) -> None:
        start(work())

    broker.consume("a.b", handle, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)
    threading.Timer(0.05, may_end.set).start()

    remainder = broker.close(LONG)

    assert done.is_set()
    assert remainder.is_clean


def test_those_that_do_not_end_are_named_and_cancelled(
    make_broker: MakeBroker,
) -> None:
    cancelled, recorder = threading.Event(), Recorder()
    broker = make_broker(hooks=[recorder])

    async def handle(message: Message[Any]) -> None:
        start(work_for_ever(cancelled))

    broker.consume("a.b", handle, name="c")
    broker.publish_many([Message("a.b")] * 2)
    wait_until_settled(broker)

    remainder = broker.close(0.05)

    assert list(remainder.background) == ["work_for_ever"] * 2
    assert (remainder.is_clean, remainder.left) == (False, 2)
    assert recorder.named("stopped") == [remainder]
    assert cancelled.wait(LONG)


def test_a_drain_without_limit_does_not_wait_for_ever_for_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.drain.BACKGROUND_SECONDS", 0.05)

    async def handle(message: Message[Any]) -> None:
        start(work_for_ever(threading.Event()))

    broker.consume("a.b", handle, name="c")
    broker.publish(Message("a.b"))

    remainder = broker.close(math.inf)

    assert list(remainder.background) == ["work_for_ever"]
    assert broker.stats().consumers["c"].succeeded == 1


class Odd(Coroutine[Any, Any, Any]):
    """A coroutine that nothing tells the name of."""

    def send(self, value: object) -> Any:
        return asyncio.sleep(LONG).__await__().send(None)

    def throw(self, *error: Any) -> Any:
        raise StopIteration

    def close(self) -> None: ...

    def __await__(self) -> Generator[Any, None, None]:
        raise NotImplementedError


def test_a_coroutine_without_a_name_is_told_by_its_class(broker: Broker) -> None:
    async def handle(message: Message[Any]) -> None:
        start(Odd())

    broker.consume("a.b", handle, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert list(broker.close(0.05).background) == ["Odd"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_where_handlers_started_nothing_nothing_is_waited_for(
    broker: Broker, kind: str
) -> None:
    async def ahandle(message: Message[Any]) -> None: ...

    handler: Any = ahandle if kind == "async" else lambda _: None
    broker.consume("a.b", handler, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    remainder = broker.close(LONG)

    assert remainder.seconds < LONG / 2
    assert list(remainder.background) == []
