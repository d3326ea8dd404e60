"""Who handles: threads of the worker, and the loop of async handlers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    Delivery,
)
from django_gomq.bus.message import Message
from django_gomq.bus.worker.async_loop import AsyncLoop
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.runner import ConsumerRunner
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


async def areturn(message: Message[Any]) -> None: ...


def test_as_many_threads_as_the_concurrency_handle_at_once(broker: Broker) -> None:
    together = threading.Barrier(4)
    broker.consume(
        "a.b", lambda _: together.wait(LONG) and None, name="c", concurrency=4
    )

    for _ in range(8):
        broker.publish(Message("a.b"))

    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 8


def test_one_burst_wakes_all_the_threads_that_may_help(broker: Broker) -> None:
    together = threading.Barrier(4)
    broker.consume(
        "a.b", lambda _: together.wait(LONG) and None, name="c", concurrency=4
    )
    broker.pause("c")
    for _ in range(8):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 8)
    runtime = broker._current_runtime()
    subscription, worker = runtime.subscription("c"), runtime._worker
    worker.timers.cancel(worker._supervise)  # it wakes whoever has work

    subscription.paused = False
    subscription.notify()  # a single wake-up: each thread must wake the next

    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 8


def test_no_more_threads_than_the_concurrency_handle_at_once(broker: Broker) -> None:
    lock, inside, most = threading.Lock(), [0], [0]
    together = threading.Barrier(2)

    def handle(message: Message[Any]) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        if message.data < 2:
            together.wait(LONG)
        threading.Event().wait(0.001)
        with lock:
            inside[0] -= 1

    broker.consume("a.b", handle, name="c", concurrency=2)
    for number in range(60):
        broker.publish(Message("a.b", b"%d" % number))
    wait_until_settled(broker)

    assert most[0] == 2


def test_a_slow_consumer_leaves_threads_to_the_others(make_broker: MakeBroker) -> None:
    broker, go_on = make_broker(threads=2), threading.Event()
    broker.consume("a.b", lambda _: go_on.wait(LONG), name="slow")
    broker.consume("a.b", lambda _: None, name="quick")

    for _ in range(20):
        broker.publish(Message("a.b"))

    wait_until(lambda: broker.stats().consumers["quick"].succeeded == 20)
    go_on.set()
    wait_until_settled(broker)


def test_an_urgent_message_overtakes_slow_ones(broker: Broker) -> None:
    handled: list[int] = []
    urgent_is_in = threading.Event()

    def handle(message: Message[Any]) -> None:
        handled.append(message.priority)
        if len(handled) == 3:
            broker.publish(Message("a.b", priority=9))
            wait_until(lambda: subscription.channel.firsts()[0].message.priority == 9)
            urgent_is_in.set()

    broker.consume("a.b", handle, name="c")
    subscription = broker._current_runtime().subscription("c")
    subscription.mean_seconds = 0.01  # it is known to be slow
    broker.pause("c")
    for _ in range(200):
        broker.publish(Message("a.b", priority=0))
    wait_until(lambda: broker.stats().consumers["c"].depth == 200)

    broker.resume("c")
    wait_until_settled(broker)

    assert urgent_is_in.is_set()
    assert handled[3] == 9


def test_what_a_slow_slice_did_not_start_goes_back_for_others(broker: Broker) -> None:
    handled: list[int] = []
    is_slow = threading.Event()

    def handle(message: Message[Any]) -> None:
        handled.append(message.data)
        if not is_slow.is_set():
            is_slow.set()
            threading.Event().wait(0.01)  # longer than two slices

    broker.consume("a.b", handle, name="c")
    subscription = broker._current_runtime().subscription("c")
    subscription.mean_seconds = 1e-9
    for number in range(50):
        broker.publish(Message("a.b", b"%d" % number))
    wait_until_settled(broker)

    assert handled == list(range(50))


def test_a_slice_that_a_stop_emptied_is_no_trouble(broker: Broker) -> None:
    broker.consume("a.b", print, name="c")
    life = broker._current_runtime()
    subscription = life.subscription("c")
    runner: ConsumerRunner = life._worker._runners[subscription]

    runner.serve([])

    assert broker.stats().consumers["c"].unaccounted == 0


def test_a_share_is_fair_and_bounded_by_time(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", concurrency=4)
    broker.consume("a.b", print, name="batch", batch=7)
    life = broker._current_runtime()
    runner = life._worker._runners[life.subscription("c")]
    channel = runner.subscription.channel
    for _ in range(400):
        channel.put(Delivery(Message("a.b"), 0))

    shares = [runner.share()]
    for mean_seconds in (1e-9, 0.0001, 0.01):
        runner.subscription.mean_seconds = mean_seconds
        shares.append(runner.share())

    assert shares == [1, 100, 10, 1]
    assert life._worker._runners[life.subscription("batch")].share() == 7
    channel.release(len(channel.take(400)))


def test_a_worker_says_what_its_threads_do(broker: Broker) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def handle(message: Message[Any]) -> None:
        inside.set()
        go_on.wait(LONG)

    broker.consume("a.b", handle, name="c")
    worker = broker._current_runtime()._worker
    assert (worker.alive, worker.busy) == (0, 0)

    broker.publish(Message("a.b"))
    inside.wait(LONG)

    assert (worker.alive, worker.busy) == (8, 1)
    worker.start()
    assert worker.alive == 8
    go_on.set()
    wait_until(lambda: worker.busy == 0)


def test_a_bug_while_serving_ends_no_thread(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    broker = make_broker(
        get_worker=lambda: Worker(1, hooks=[recorder]), hooks=[recorder]
    )
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()

    def fail(self: ConsumerRunner) -> int:
        monkeypatch.undo()
        raise RuntimeError("injected")

    monkeypatch.setattr(ConsumerRunner, "share", fail)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert [part for part, _ in recorder.named("failed")] == ["worker"]
    assert broker.stats().consumers["c"].succeeded == 1


def test_a_shared_worker_outlives_a_broker(make_broker: MakeBroker) -> None:
    worker = Worker(2)
    one, two = (make_broker(get_worker=lambda: worker) for _ in range(2))
    for broker in (one, two):
        broker.consume("a.b", lambda _: None, name="c")
        broker.publish(Message("a.b"))
        wait_until_settled(broker)

    one.close()
    two.publish(Message("a.b"))

    wait_until_settled(two)
    assert two.stats().consumers["c"].succeeded == 2
    two.close()
    assert worker.stop(timeout=LONG) == 0


def test_a_second_stop_of_a_worker_waits_for_nobody(make_broker: MakeBroker) -> None:
    worker, entered, go_on = Worker(threads=1), threading.Event(), threading.Event()
    broker = make_broker(get_worker=lambda: worker)

    def stick(message: object) -> None:
        entered.set()
        go_on.wait()

    broker.consume("a.b", stick, name="c")
    broker.publish(Message("a.b"))
    assert entered.wait(LONG)

    first = worker.stop(timeout=0.01)
    second = worker.stop(timeout=1000)  # a wait would outlast the test

    go_on.set()
    assert (first, second) == (1, 1)


def test_a_consumer_that_joins_a_running_bus_is_served(broker: Broker) -> None:
    broker.start()
    for name, handler in (("sync", lambda _: None), ("async", areturn)):
        broker.consume("a.b", handler, name=name)

    broker.publish(Message("a.b"))

    wait_until_settled(broker)
    assert [one.succeeded for one in broker.stats().consumers.values()] == [1, 1]


def test_a_loop_that_has_ended_is_woken_no_more() -> None:
    errors: list[BaseException] = []
    loop = AsyncLoop(errors.append)
    runner: Any = object()
    loop.pump(runner)  # before it runs
    loop.start()
    loop.start()
    thread = loop._thread
    loop.stop(5)

    loop.pump(runner)
    loop.stop(5)
    loop.start()

    assert loop._thread is thread
    assert not loop._called
    assert not errors


def test_a_loop_that_ends_while_it_is_stopped_is_no_trouble() -> None:
    runner = AsyncLoop(print)
    runner.start()
    loop, thread = runner._loop, runner._thread
    assert loop is not None
    assert thread is not None

    def end() -> None:
        runner._has_ended = True
        loop.stop()

    loop.call_soon_threadsafe(end)
    thread.join(LONG)
    runner._thread = threading.current_thread()  # as if it had been alive

    runner.stop(5)

    assert loop.is_closed()


class EndingHost(Environment):
    """Notes that the loop ends, and then does what it was given."""

    def __init__(self, then: Callable[[], Awaitable[None]]) -> None:
        self.ends: list[asyncio.AbstractEventLoop] = []
        self._then = then

    async def loop_ending(self) -> None:
        self.ends.append(asyncio.get_running_loop())
        await self._then()


def test_the_host_is_told_once_before_the_loop_ends() -> None:
    errors: list[BaseException] = []
    environment = EndingHost(partial(asyncio.sleep, 0))
    runner = AsyncLoop(errors.append, environment=environment)
    runner.start()
    loop = runner._loop

    runner.stop(5)
    runner.stop(5)

    assert environment.ends == [loop]
    assert not errors


def test_a_host_that_fails_as_the_loop_ends_is_reported() -> None:
    async def fail() -> None:
        raise OSError("gone")

    errors: list[BaseException] = []
    runner = AsyncLoop(errors.append, environment=EndingHost(fail))
    runner.start()

    runner.stop(5)

    assert [str(one) for one in errors] == ["gone"]
    assert runner._loop is not None
    assert runner._loop.is_closed()


def test_a_host_that_hangs_as_the_loop_ends_does_not_hold_it() -> None:
    environment = EndingHost(asyncio.Event().wait)  # type: ignore[arg-type]
    runner = AsyncLoop(print, environment=environment)
    runner.start()

    runner.stop(0.1)

    assert runner._loop is not None
    wait_until(runner._loop.is_closed)
    assert len(environment.ends) == 1


def test_an_error_while_an_async_delivery_is_settled_is_reported(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    broker = make_broker(get_worker=lambda: Worker(1, hooks=[recorder]))
    broker.consume("a.b", areturn, name="c")
    broker.start()
    subscription = broker._current_runtime().subscription("c")

    def fail(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(subscription, "finish", fail)
    broker.publish(Message("a.b"))
    wait_until(lambda: recorder.named("failed"))
    monkeypatch.undo()

    assert [part for part, _ in recorder.named("failed")] == ["loop"]
    wait_until(lambda: len(subscription.free_slots) == 1)
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].succeeded == 2)
    subscription.channel.release(1)
