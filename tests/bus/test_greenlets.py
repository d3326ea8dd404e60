"""Where threads are greenlets of one thread: who sees the loop of async handlers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import greenlet
import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import NotRunningError
from django_gomq.bus.message import Message
from django_gomq.bus.process import fork, housekeeping
from django_gomq.bus.worker import async_loop, worker
from django_gomq.bus.worker.async_loop import AsyncLoop, GreenletTracer
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import wait_until, wait_until_settled

running = asyncio._get_running_loop


@pytest.fixture
def _green_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gevent and eventlet have it."""
    monkeypatch.setattr(async_loop, "has_green_threads", lambda: True)


@pytest.fixture
def _patched_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "is_patched_late", lambda: True)
    monkeypatch.setattr(housekeeping, "is_patched_late", lambda: True)
    monkeypatch.setattr(worker, "is_patched_late", lambda: True)


@pytest.fixture
def loop_of_others() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.usefixtures("_green_threads")
def test_a_greenlet_beside_an_async_handler_sees_its_own_running_loop_or_none(
    broker: Broker, loop_of_others: asyncio.AbstractEventLoop
) -> None:
    found: list[Any] = []

    async def handle(message: Message[Any]) -> None:
        def visit() -> None:
            found.append(running())
            asyncio._set_running_loop(loop_of_others)
            ours.switch()
            found.append(running())
            asyncio._set_running_loop(None)

        ours = greenlet.getcurrent()
        other = greenlet.greenlet(visit)
        other.switch()
        found.append(running() is asyncio.get_running_loop() is not None)
        other.switch()
        await asyncio.sleep(0)
        found.append(running() not in {None, loop_of_others})

    broker.consume("a.b", handler=handle, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].succeeded == 1
    assert found == [None, True, loop_of_others, True]


@pytest.mark.parametrize("is_heard", [False, True])
def test_each_switch_shows_the_loop_of_who_comes(
    loop_of_others: asyncio.AbstractEventLoop, is_heard: bool
) -> None:
    # Called by hand, as nothing else can see the calls of such a tracer.
    ours, one, another = object(), object(), object()
    heard: list[str] = []
    before: Any = (lambda event, switch: heard.append(event)) if is_heard else None
    loop = asyncio.new_event_loop()
    tracer = GreenletTracer(loop, ours, before)
    seen: list[Any] = []

    for switch in [(one, ours), (ours, one), (one, another), (one, ours)]:
        tracer("switch", switch)
        seen.append(running())
        if switch == (ours, one):
            asyncio._set_running_loop(loop_of_others)
    tracer("throw", (ours, another))
    seen.append(running())
    asyncio._set_running_loop(None)
    loop.close()

    assert seen == [loop, None, loop_of_others, loop, loop_of_others]
    assert heard == (["switch"] * 4 + ["throw"]) * is_heard


@pytest.mark.usefixtures("_green_threads")
def test_who_traces_greenlets_already_hears_of_their_switches_too() -> None:
    heard: list[str] = []
    tracers: list[Any] = []

    def visit_another() -> None:
        tracers.append(greenlet.gettrace())
        greenlet.greenlet(lambda: None).switch()

    def hear(event: str, switch: Any) -> None:
        heard.append(event)

    loop = AsyncLoop(print, on_start=lambda: greenlet.settrace(hear))
    loop.start()
    assert loop._loop is not None
    loop._loop.call_soon_threadsafe(visit_another)
    wait_until(lambda: heard)
    loop.stop(5)

    assert tracers != [hear]
    assert set(heard) == {"switch"}


@pytest.mark.usefixtures("_green_threads")
def test_a_later_tracer_of_greenlets_stays_when_the_loop_ends() -> None:
    left: list[Any] = []

    def trace(event: str, switch: Any) -> None: ...

    class Loop(AsyncLoop):
        def _run(self, loop: asyncio.AbstractEventLoop) -> None:
            super()._run(loop)
            left.append(greenlet.gettrace())

    loop = Loop(print)
    loop.start()
    assert loop._loop is not None
    loop._loop.call_soon_threadsafe(greenlet.settrace, trace)
    loop.stop(5)
    wait_until(lambda: left)

    assert left == [trace]


@pytest.mark.usefixtures("_patched_late")
def test_where_threads_became_greenlets_too_late_nothing_starts_and_it_is_told(
    make_broker: MakeBroker,
) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", lambda _: None, name="c")
    before = set(threading.enumerate())

    for _ in range(2):
        with pytest.raises(NotRunningError, match="call monkey.patch_all.. first"):
            broker.publish(Message("a.b"))

    assert list(recorder.calls) == [("refused", ("a.b", "not_running"))] * 2
    assert set(threading.enumerate()) <= before
    assert not broker.is_started
