"""A thread that cannot be had refuses what is published, until it is had."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import NotRunningError, QueueFullError
from django_gomq.bus.message import Message
from django_gomq.bus.process.interrupts import run_shielded
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import wait_until

THREADS = 3
NAMES = [
    "gomq-timers",
    *(f"gomq-handler-{number}" for number in range(1, THREADS + 1)),
    "gomq-loop",
    "gomq-memory-dispatcher",
]
ERRORS = [RuntimeError("can't start new thread"), MemoryError()]

Shortage = Callable[[str, BaseException], Any]


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch) -> Shortage:
    """Makes a context in which a thread of this name cannot be had; "*": none."""
    start = threading.Thread.start

    @contextmanager
    def make(name: str, error: BaseException) -> Iterator[None]:
        def refuse(thread: threading.Thread) -> None:
            if name in ("*", thread.name):
                raise type(error)(*error.args)
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            yield

    return make


@pytest.fixture
def handled() -> list[object]:
    return []


@pytest.fixture
def broker(make_broker: MakeBroker, handled: list[object]) -> Broker:
    """Has a sync and an async consumer."""
    made = make_broker(threads=THREADS, hooks=[Recorder()])

    async def handle(message: Message[Any]) -> None:
        handled.append(("async", message.data))

    made.consume("a.b", lambda m: handled.append(("sync", m.data)), name="sync")
    made.consume("a.b", handle, name="async")
    return made


def assert_runs(broker: Broker, handled: list[object]) -> None:
    broker.publish(Message("a.b", b"1"))
    wait_until(lambda: sorted(handled) == [("async", 1), ("sync", 1)])  # type: ignore[type-var]
    running = [thread.name for thread in threading.enumerate()]
    assert all(running.count(name) >= 1 for name in NAMES)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("name", [*NAMES, "*"])
def test_a_thread_that_cannot_be_had_refuses_now_and_is_had_later(
    broker: Broker,
    handled: list[object],
    shortage: Shortage,
    name: str,
    error: BaseException,
) -> None:
    with shortage(name, error):
        for _ in range(3):
            with pytest.raises(NotRunningError, match="tries again") as caught:
                broker.publish(Message("a.b"))
            assert not broker.is_started
        with pytest.raises(NotRunningError):
            broker.start()

    assert type(caught.value.__cause__) is type(error)
    assert_runs(broker, handled)
    assert broker.stats().queues["a.b"].refused == {"not_running": 3}
    assert broker.stats().queues["a.b"].published == 1


def test_a_loop_without_descriptors_refuses_too(
    broker: Broker, handled: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as shortage:
        shortage.setattr(asyncio, "new_event_loop", refuse)
        with pytest.raises(NotRunningError, match="Too many open files"):
            broker.publish(Message("a.b"))

    assert_runs(broker, handled)


def test_a_refused_start_is_told_like_any_refusal(
    make_broker: MakeBroker, shortage: Shortage
) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", print, name="c")

    with shortage("gomq-timers", ERRORS[0]):
        assert broker.publish_many([Message("a.b")] * 2)

    assert recorder.named("refused") == [("a.b", "not_running")] * 2


def test_a_broker_that_could_not_start_can_be_closed(
    broker: Broker, shortage: Shortage
) -> None:
    with shortage("*", ERRORS[0]):
        with pytest.raises(NotRunningError):
            broker.publish(Message("a.b"))
        remainder = broker.close(timeout=1)

    assert remainder.is_clean


def test_an_async_consumer_that_comes_while_threads_are_short_is_served_later(
    make_broker: MakeBroker, shortage: Shortage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 0.01)
    recorder, handled = Recorder(), list[object]()
    broker = make_broker(hooks=[recorder])
    broker.start()

    async def handle(message: Message[Any]) -> None:
        handled.append(message.data)

    with shortage("gomq-loop", ERRORS[0]):
        broker.consume("a.b", handle, name="late")
        broker.publish(Message("a.b", b"1"))
        assert "worker" in [part for part, _ in recorder.named("failed")]

    wait_until(lambda: handled == [1])


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_publish_inside_an_except_block_raises_its_own_refusal(
    broker: Broker, shortage: Shortage, error: BaseException
) -> None:
    with shortage("*", error), pytest.raises(NotRunningError):
        try:
            raise QueueFullError("what the caller is about")
        except QueueFullError:
            broker.publish(Message("a.b"))


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_must_run_to_its_end_does_without_a_thread(
    shortage: Shortage, error: BaseException
) -> None:
    ran: list[int] = []

    with shortage("*", error):
        try:
            raise LookupError
        except LookupError:
            run_shielded(lambda: ran.append(1))

    assert ran == [1]
