"""What stands still is set going again within a second or two."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.process.timers import Timers
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.pool import HandlerPool
from django_gomq.bus.worker.ready_queue import ReadyQueue
from django_gomq.bus.worker.worker import Worker, _put_back_unstarted
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 0.01)


@pytest.fixture
def go_on() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(2)
    yield made
    made.stop(timeout=LONG)


def hang(broker: Broker, go_on: Event, **options: Any) -> list[int]:
    """Add a consumer whose handler hangs until then; return what it began."""
    began: list[int] = []

    def handle(message: Message[Any]) -> None:
        began.append(message.data)
        go_on.wait(LONG)

    broker.consume("hang.it", handle, name="hangs", **options)
    return began


def publish(broker: Broker, event: str, count: int = 1) -> None:
    for number in range(count):
        broker.publish(Message(event, b"%d" % number))


def test_others_go_on_while_a_handler_hangs_past_its_timeout(
    make_broker: MakeBroker, go_on: Event
) -> None:
    recorder, handled = Recorder(), list[int]()
    broker = make_broker(threads=2, hooks=[recorder])
    began = hang(broker, go_on, timeout=0.05, concurrency=2)
    broker.consume("a.b", lambda m: handled.append(m.data), name="quick")
    publish(broker, "hang.it", 5)
    wait_until(lambda: len(began) == 2)

    publish(broker, "a.b", 20)

    wait_until(lambda: len(handled) == 20)
    assert len(began) == 2  # its slots stay taken
    assert broker.stats().consumers["hangs"].in_flight == 2
    go_on.set()
    wait_until_settled(broker)
    assert sorted(began) == [0, 1, 2, 3, 4]
    assert {name for name, _ in recorder.named("overran")} == {"hangs"}


def test_a_thread_that_was_replaced_ends_when_its_handler_returns(
    make_broker: MakeBroker, worker: Worker, go_on: Event
) -> None:
    broker = make_broker(get_worker=lambda: worker)
    began = hang(broker, go_on, timeout=0.02, concurrency=2)
    publish(broker, "hang.it", 2)
    wait_until(lambda: len(began) == 2)
    wait_until(lambda: worker.alive == 4)
    assert worker.busy == 2
    assert worker.dead_parts() == []

    go_on.set()

    wait_until(lambda: worker.alive == 2)
    wait_until(lambda: worker.busy == 0)


def test_at_most_as_many_again_hang_as_there_are_threads(
    make_broker: MakeBroker, worker: Worker, go_on: Event
) -> None:
    broker = make_broker(get_worker=lambda: worker)
    began = hang(broker, go_on, timeout=0.02, concurrency=9)
    publish(broker, "hang.it", 9)

    wait_until(lambda: len(began) == 4)
    reached, ticks = threading.Event(), iter(range(5))

    def count() -> None:
        if next(ticks, None) is None:
            reached.set()

    worker.timers.every_second(count)
    assert reached.wait(LONG)
    assert (len(began), worker.alive) == (4, 4)

    go_on.set()
    wait_until_settled(broker)
    wait_until(lambda: worker.alive == 2)


def test_what_a_hanging_thread_had_taken_goes_to_others(
    make_broker: MakeBroker, go_on: Event
) -> None:
    handled: list[int] = []

    def handle(message: Message[Any]) -> None:
        if message.data == 500:
            go_on.wait(LONG)
        handled.append(message.data)

    broker = make_broker(threads=2)
    broker.consume("a.b", handle, name="c", concurrency=2, timeout=0.05)
    publish(broker, "a.b", 400)  # quick ones: a thread takes many at a time
    wait_until_settled(broker)
    broker.pause("c")
    broker.publish_many([Message("a.b", b"%d" % n) for n in range(500, 700)])
    wait_until(lambda: broker.stats().consumers["c"].depth == 200)
    broker.resume("c")

    wait_until(lambda: len(handled) == 400 + 199)

    go_on.set()
    wait_until_settled(broker)
    assert len(handled) == 600


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_thread_that_died_is_replaced(
    make_broker: MakeBroker, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers, handled = handler_threads(), list[int]()  # other tests' may still live
    broker = make_broker(get_worker=lambda: worker)
    broker.consume("a.b", lambda m: handled.append(m.data), name="c", concurrency=2)
    publish(broker, "a.b")
    wait_until(lambda: handled == [0])
    victims = handler_threads() - strangers
    next_item = ReadyQueue.next

    def die(queue: ReadyQueue[Any], timeout: float = -1) -> Any:
        if threading.current_thread() in handler_threads() - strangers:
            raise SystemExit
        return next_item(queue, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(ReadyQueue, "next", die)
        for thread in victims:
            while thread.is_alive():
                publish(broker, "a.b")  # wakes one of them
                thread.join(0.01)

    wait_until(lambda: worker.alive == 2 and not worker.dead_parts())
    wait_until_settled(broker)
    assert victims.isdisjoint(handler_threads())


def handler_threads() -> set[Thread]:
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("gomq-handler")
    }


def test_a_call_that_woke_nobody_is_made_again(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[int] = []
    broker = make_broker()
    broker.consume("a.b", lambda m: handled.append(m.data), name="c", concurrency=3)
    broker.start()
    ready: ReadyQueue[Any] = broker._current_runtime()._worker._ready
    add, lost = ready.add, list[object]()

    def lose_first(item: object) -> None:
        if lost:
            add(item)
        else:
            lost.append(item)

    monkeypatch.setattr(ready, "add", lose_first)
    publish(broker, "a.b")

    wait_until(lambda: handled == [0])
    assert lost


def test_an_async_handler_that_ends_or_stops_the_loop_ends_no_loop(
    make_broker: MakeBroker, worker: Worker
) -> None:
    handled: list[int] = []

    async def handle(message: Message[Any]) -> None:
        loop = asyncio.get_running_loop()
        if message.data == 0:
            loop.stop()
        if message.data == 1:
            loop.call_soon(end)
        handled.append(message.data)

    def end() -> None:
        raise SystemExit(1)

    broker = make_broker(get_worker=lambda: worker)
    broker.consume("a.b", handle, name="c")

    publish(broker, "a.b", 5)

    wait_until_settled(broker)
    assert handled == [0, 1, 2, 3, 4]
    assert worker.dead_parts() == []


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), MemoryError()], ids=repr)
def test_timers_outlive_whatever_a_callback_raises(error: BaseException) -> None:
    told: list[BaseException] = []
    timers, ticked = Timers(told.append), Event()

    def fail() -> None:
        raise error

    timers.every_second(fail)
    timers.every_second(ticked.set)
    timers.every_second(ticked.set)
    timers.start()
    timers.start()

    assert ticked.wait(LONG)
    assert timers.is_alive
    thread = timers._thread
    assert thread is not None
    timers.stop()
    thread.join(LONG)
    assert told[0] is error
    assert not timers.is_alive


def kill(thread: Thread) -> None:
    """Have a thread die between two of its steps."""
    ident = ctypes.c_ulong(thread.ident or 0)
    while thread.is_alive():  # a callback may have caught the last one
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
        thread.join(1.0)


def kill_timers(worker: Worker) -> None:
    old = worker.timers._thread
    assert old is not None
    kill(old)


def test_timers_that_died_are_replaced_and_what_waits_comes(
    make_broker: MakeBroker,
) -> None:
    attempts: list[int] = []
    worker = Worker(2)
    broker = make_broker(get_worker=lambda: worker)

    def fail_once(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            kill_timers(worker)
            raise ValueError

    retry = Retry(attempts=2, min_delay=0.05, max_delay=0.05)
    broker.consume("a.b", fail_once, name="c", retry=retry)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert attempts == [1, 2]
    assert worker.timers.is_alive
    worker.stop(timeout=LONG)


def test_timers_that_could_not_be_replaced_are_at_the_next_message(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(2)
    broker = make_broker(get_worker=lambda: worker)
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()
    with monkeypatch.context() as patch:
        patch.setattr("django_gomq.bus.process.timers.Thread", raise_no_thread)
        kill_timers(worker)
        assert worker.dead_parts() == ["timers"]

    broker.publish(Message("a.b"))

    wait_until(lambda: worker.timers.is_alive)
    assert not worker.timers.is_lost
    worker.stop(timeout=LONG)


def raise_no_thread(*_: object, **__: object) -> None:
    raise RuntimeError("can't start new thread")


def test_an_error_whose_text_blocks_holds_up_no_other_async_handler(
    make_broker: MakeBroker, go_on: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Event()

    class SlowError(Exception):
        def __str__(self) -> str:
            asked.set()
            go_on.wait(LONG)
            return "at last"

    async def fail(message: Message[Any]) -> None:
        raise SlowError

    handled: list[object] = []

    async def handle(message: Message[Any]) -> None:
        handled.append(message.data)

    monkeypatch.setattr("django_gomq.bus.errors.TEXT_SECONDS", LONG)
    broker = make_broker()
    broker.consume("a.b", fail, name="fails")
    broker.consume("c.d", handle, name="quick")
    broker.publish(Message("a.b"))
    assert asked.wait(LONG)

    publish(broker, "c.d", 20)

    wait_until(lambda: len(handled) == 20)
    go_on.set()
    wait_until(broker.dead_letters)
    assert broker.dead_letters()[0].error == "SlowError: at last"


def test_an_async_handler_that_fails_as_it_is_cancelled_is_counted(
    broker: Broker,
) -> None:
    began = Event()

    async def fail_late(message: Message[Any]) -> None:
        began.set()
        try:
            await asyncio.sleep(LONG)
        finally:
            raise ValueError("its clean-up")

    broker.consume("a.b", fail_late, name="c")
    broker.publish(Message("a.b"))
    assert began.wait(LONG)

    broker.close(timeout=0.05)

    wait_until(lambda: broker.stats().consumers["c"].dead_lettered == 1)


def test_a_pool_that_was_closed_starts_no_thread() -> None:
    pool = HandlerPool(2, lambda _: None)

    pool.close()
    pool.start_missing()

    assert pool.dead() == [1, 2]


def test_parts_that_do_not_run_are_named() -> None:
    worker = Worker(2)
    worker.start()
    assert worker.dead_parts() == []

    worker.stop(timeout=LONG)
    worker.start()

    assert worker.dead_parts() == ["handler thread 1", "handler thread 2", "timers"]


@pytest.mark.parametrize(
    ("part", "answer", "told"),
    [
        ("worker.async_loop.AsyncLoop.is_alive", False, "event loop"),
        ("process.housekeeping.Housekeeping.is_dead", True, "housekeeping"),
    ],
)
def test_a_part_is_named_where_it_is_needed(
    make_broker: MakeBroker,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    answer: bool,
    told: str,
) -> None:
    async def handle(message: object) -> None: ...

    broker = make_broker(get_worker=lambda: worker)
    broker.start()
    broker.consume("a.b", handle, name="c")
    assert worker.dead_parts() == []

    monkeypatch.setattr(f"django_gomq.bus.{part}", answer)

    assert worker.dead_parts() == [told]


def test_observers_that_wait_for_a_thread_get_one_without_another_event(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, observed = Thread.start, Event()

    def refuse(thread: Thread) -> None:
        if thread.name == "gomq-housekeeping":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as shortage:
        shortage.setattr(Thread, "start", refuse)
        worker.start()
        worker.housekeeping.hand_over(observed.set)
        assert worker.housekeeping.is_dead

    assert observed.wait(LONG)


def test_what_a_hung_thread_took_and_has_not_started_is_put_back() -> None:
    handler_thread: Any = SimpleNamespace(thread=threading.current_thread())
    put_back, notified = list[Any](), list[bool]()
    subscription: Any = SimpleNamespace(
        unstarted={threading.get_ident(): deque([1, 2])},
        put_back=put_back.append,
        notify=lambda: notified.append(True),
    )

    _put_back_unstarted(subscription, handler_thread)

    assert (put_back, notified) == ([[1, 2]], [True])
