from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from django_gomq.backends.memory import publisher
from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import DropReason
from django_gomq.bus.errors import BrokerClosedError, PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.process import timers
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import Remainder
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, run_threads, wait_until


class Stuck:
    """A handler that goes on when it is told."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.handled: list[Any] = []

    def handle(self, message: Message[Any]) -> None:
        self.inside.release()
        self.go_on.wait(LONG)
        self.handled.append(message.data)


@pytest.fixture
def stuck() -> Any:
    handler = Stuck()
    yield handler
    handler.go_on.set()


def fail(message: Message[Any]) -> None:
    raise ValueError


def test_what_was_accepted_is_finished_before_a_close_ends(
    make_broker: MakeBroker,
) -> None:
    broker, handled = make_broker(drain_timeout=LONG), list[int]()
    broker.consume("a.b", lambda m: handled.append(m.data), name="c")
    for number in range(500):
        broker.publish(Message("a.b", b"%d" % number))

    remainder = broker.close()

    assert handled == list(range(500))
    assert remainder.is_clean


def test_a_close_may_take_as_long_as_the_work_does(broker: Broker) -> None:
    handled: list[Any] = []

    def handle(message: Message[Any]) -> None:
        time.sleep(0.01)
        handled.append(message.data)

    broker.consume("a.b", handle, name="c")
    for _ in range(5):
        broker.publish(Message("a.b"))

    assert broker.close(math.inf).is_clean
    assert len(handled) == 5


def test_a_second_close_gives_the_first_ones_answer(broker: Broker) -> None:
    broker.consume("a.b", print, name="c")
    broker.start()

    assert broker.close() is broker.close(timeout=0)


def test_a_broker_that_was_never_started_closes(broker: Broker) -> None:
    assert broker.close().is_clean
    with pytest.raises(BrokerClosedError):
        broker.start()


def test_two_threads_that_close_get_one_answer(broker: Broker, stuck: Stuck) -> None:
    broker.consume("a.b", stuck, name="c")
    broker.publish(Message("a.b"))
    stuck.inside.acquire(timeout=LONG)
    answers: list[Remainder] = []

    run_threads(
        lambda: answers.append(broker.close(timeout=0.05)),
        lambda: answers.append(broker.close(timeout=0.05)),
    )

    assert answers[0] is answers[1]


def test_hooks_hear_of_the_stop_once(make_broker: MakeBroker) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    broker.start()

    remainder = broker.close()
    broker.close()

    assert recorder.named("stopped") == [remainder]


def test_a_handler_may_close_its_broker(broker: Broker) -> None:
    answers: list[Remainder] = []

    def close(message: Message[Any]) -> None:
        answers.append(broker.close(timeout=0.05))

    broker.consume("a.b", close, name="c")
    began = time.monotonic()
    broker.publish(Message("a.b"))

    wait_until(lambda: answers)

    assert answers[0].in_flight == 1
    assert time.monotonic() - began < LONG / 2


def test_an_async_handler_may_close_its_broker(broker: Broker) -> None:
    answers: list[Remainder] = []

    async def close(message: Message[Any]) -> None:
        answers.append(broker.close(timeout=0.05))

    broker.consume("a.b", close, name="c")
    broker.publish(Message("a.b"))

    wait_until(lambda: answers)

    assert answers[0].in_flight == 1


def test_a_stuck_handler_holds_a_close_up_to_its_timeout(
    broker: Broker, stuck: Stuck
) -> None:
    broker.consume("a.b", stuck, name="c")
    broker.publish(Message("a.b"))
    stuck.inside.acquire(timeout=LONG)
    began = time.monotonic()

    remainder = broker.close(timeout=0.1)

    assert 0.1 <= time.monotonic() - began < LONG / 2
    assert remainder.in_flight == 1
    assert not remainder.is_clean


def test_what_is_left_is_dropped_and_the_last_words_say_so(
    make_broker: MakeBroker, stuck: Stuck
) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", stuck, name="c")
    for _ in range(4):
        broker.publish(Message("a.b"))
    stuck.inside.acquire(timeout=LONG)
    wait_until(lambda: broker.stats().consumers["c"].depth == 3)

    remainder = broker.close(timeout=0.01)

    stats = broker.stats().consumers["c"]
    assert remainder.dropped == {"a.b": 3}
    assert stats.dropped == {("a.b", DropReason.SHUTDOWN): 3}
    assert (stats.in_flight, stats.depth, stats.unaccounted) == (1, 0, 0)
    assert sum(count for _, count, _ in recorder.named("dropped")) == 3


def test_messages_in_the_hands_of_a_stuck_thread_are_left_over_too(
    broker: Broker, stuck: Stuck
) -> None:
    stuck.go_on.set()
    broker.consume("a.b", stuck, name="c")
    for _ in range(50):
        broker.publish(Message("a.b"))  # a fast handler: many are taken at a time
    wait_until(lambda: len(stuck.handled) == 50)
    broker.pause("c")
    stuck.go_on.clear()
    for _ in range(50):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 50)
    broker.resume("c")
    wait_until(lambda: broker.stats().consumers["c"].in_flight == 1)

    remainder = broker.close(timeout=0.01)

    assert remainder.dropped == {"a.b": 49}
    stuck.go_on.set()
    wait_until(lambda: broker.stats().consumers["c"].in_flight == 0)
    wait_until(lambda: broker.stats().consumers["c"].succeeded == 51)
    wait_until(lambda: broker.stats().consumers["c"].unaccounted == 0)


def test_messages_in_the_queue_are_left_over_for_each_consumer(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    for name in ("one", "two"):
        broker.consume("a.b", print, name=name, overflow="backpressure", capacity=1)
        broker.pause(name)
    for _ in range(4):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["two"].depth == 1)

    remainder = broker.close(timeout=0)

    stats = broker.stats()
    assert remainder.dropped == {"a.b": 8}
    assert stats.queues["a.b"].dispatched == stats.queues["a.b"].published == 4
    assert stats.consumers["one"].dispatched == {"a.b": 4}
    assert stats.consumers["one"].unaccounted == 0


def test_a_drain_waits_for_a_retry_that_is_due_in_time(broker: Broker) -> None:
    attempts: list[int] = []

    def flaky(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt < 3:
            raise ValueError

    retry = Retry(min_delay=0.02, max_delay=0.02, jitter=False)
    broker.consume("a.b", flaky, name="c", retry=retry)
    broker.publish(Message("a.b"))

    remainder = broker.close(timeout=LONG)

    assert attempts == [1, 2, 3]
    assert remainder.is_clean


def test_a_drain_does_not_wait_for_a_retry_that_is_due_too_late(broker: Broker) -> None:
    too_late = Retry(min_delay=2 * LONG, max_delay=2 * LONG, jitter=False)
    broker.consume("a.b", fail, name="c", retry=too_late)
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].scheduled == 1)
    began = time.monotonic()

    remainder = broker.close(timeout=LONG)

    assert time.monotonic() - began < LONG / 2
    assert remainder.dropped == {"a.b": 1}
    assert broker.stats().consumers["c"].unaccounted == 0


def test_a_drain_waits_for_a_delay_that_ends_in_time(broker: Broker) -> None:
    handled: list[Any] = []
    broker.consume("a.b", handled.append, name="c")
    broker.publish(Message("a.b", delay=0.05))

    assert broker.close(timeout=LONG).is_clean
    assert len(handled) == 1


def test_a_drain_does_not_wait_for_a_delay_that_ends_too_late(broker: Broker) -> None:
    broker.consume("a.b", print, name="c")
    broker.publish(Message("a.b", delay=2 * LONG))
    began = time.monotonic()

    remainder = broker.close(timeout=LONG)

    queue = broker.stats().queues["a.b"]
    assert time.monotonic() - began < LONG / 2
    assert remainder.dropped == {"a.b": 1}
    assert (queue.depth, queue.delayed, queue.dispatched) == (0, 0, 1)


def test_a_paused_consumer_does_not_hold_a_drain(broker: Broker) -> None:
    broker.consume("a.b", print, name="c")
    broker.pause("c")
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    began = time.monotonic()

    remainder = broker.close(timeout=LONG)

    assert time.monotonic() - began < LONG / 2
    assert remainder.dropped == {"a.b": 1}


def test_a_paused_consumer_with_a_retry_does_not_hold_a_drain(broker: Broker) -> None:
    retry = Retry(min_delay=LONG * 0.9, jitter=False)
    broker.consume("a.b", fail, name="c", retry=retry)
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].scheduled == 1)
    broker.pause("c")
    began = time.monotonic()

    broker.close(timeout=LONG)

    assert time.monotonic() - began < LONG / 2


def test_a_queue_behind_a_paused_consumer_does_not_hold_a_drain(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    for _ in range(3):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    began = time.monotonic()

    remainder = broker.close(timeout=LONG)

    assert time.monotonic() - began < LONG / 2
    assert remainder.dropped == {"a.b": 3}


def test_nothing_lingers_in_a_drain(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume(
        "a.b",
        lambda batch: sizes.append(len(batch)),
        name="c",
        batch=10,
        linger=2 * LONG,
    )
    broker.publish(Message("a.b"))

    assert broker.close(timeout=LONG).is_clean
    assert sizes == [1]


@pytest.mark.parametrize("event", ["a.b", "a.new"])
def test_a_publish_after_close_is_refused_and_counted(
    make_broker: MakeBroker, event: str
) -> None:
    broker = make_broker()
    broker.consume("a.*", print, name="c")
    broker.publish(Message("a.b"))
    broker.close()

    with pytest.raises(BrokerClosedError) as caught:
        broker.publish(Message(event))

    assert caught.value.code == "closed"
    assert broker.stats().queues[event].refused == {"closed": 1}
    assert broker.is_closed


@pytest.mark.parametrize("event", ["a.b", "a.new"])
def test_a_publish_while_the_bus_drains_is_refused(
    broker: Broker, stuck: Stuck, event: str
) -> None:
    broker.consume("a.*", stuck, name="c")
    broker.publish(Message("a.b"))
    stuck.inside.acquire(timeout=LONG)
    closer = threading.Thread(target=lambda: broker.close(timeout=LONG))
    closer.start()
    # The last that a close takes is the room.
    wait_until(lambda: broker.stats().queues["a.b"].capacity == 0)

    # As a publisher that had looked before the close began.
    with pytest.raises(BrokerClosedError):
        broker._current_runtime().backend.publish(Message(event), None)

    stuck.go_on.set()
    closer.join(LONG)


def test_who_waits_for_room_is_refused_when_the_broker_closes(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker(capacity=1)
    broker.consume("a.b", print, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    for _ in range(2):
        broker.publish(Message("a.b"), timeout=LONG)
    errors: list[PublishError] = []

    def publish() -> None:
        try:
            broker.publish(Message("a.b"), timeout=LONG)
        except PublishError as error:
            errors.append(error)

    publisher = threading.Thread(target=publish)
    publisher.start()
    wait_until(lambda: broker._current_runtime().backend._queues.all()[0]._waiters)  # type: ignore[attr-defined]

    broker.close(timeout=0)

    publisher.join(LONG)
    assert [error.code for error in errors] == ["closed"]


def test_a_message_in_a_publishers_hands_is_still_counted_by_a_close(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_HAND_OVER_SECONDS", LONG)
    # A tick would take the permit for lost, and have the message handled.
    monkeypatch.setattr(timers, "TICK_SECONDS", 10 * LONG)
    broker.consume("a.b", print, name="c")
    broker.start()
    queue = broker._current_runtime().backend._queues.open("a.b")  # type: ignore[attr-defined]
    queue.try_permit()
    put = threading.Timer(0.02, lambda: queue.put_permitted(Message("a.b")))
    put.start()

    remainder = broker.close(timeout=0)

    put.join()
    assert remainder.dropped == {"a.b": 1}


def test_async_handlers_left_at_the_deadline_are_cancelled_and_dropped(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.runtime.STOP_SECONDS", LONG)
    cancelled: list[bool] = []
    entered: list[str] = []

    async def wait(message: Message[Any]) -> None:
        entered.append(message.id)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up takes a moment
            cancelled.append(True)

    broker.consume("a.b", wait, name="c", concurrency=2)
    for _ in range(3):
        broker.publish(Message("a.b"))
    wait_until(lambda: len(entered) == 2)
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)

    remainder = broker.close(timeout=0.02)

    assert remainder.in_flight == 0
    assert remainder.dropped == {"a.b": 3}
    assert cancelled == [True, True]
    assert broker.stats().consumers["c"].unaccounted == 0


def test_a_handler_that_fails_after_the_stop_is_not_retried(
    broker: Broker,
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def handle(message: Message[Any]) -> None:
        inside.set()
        go_on.wait(LONG)
        raise ValueError

    broker.consume("a.b", handle, name="c", retry=Retry())
    broker.publish(Message("a.b"))
    inside.wait(LONG)
    broker.close(timeout=0)

    go_on.set()

    wait_until(lambda: broker.stats().consumers["c"].in_flight == 0)
    wait_until(lambda: broker.stats().consumers["c"].dropped)
    wait_until(lambda: broker.stats().consumers["c"].unaccounted == 0)
    assert broker.stats().consumers["c"].scheduled == 0


def test_a_close_within_a_close_ends_it_at_once(broker: Broker, stuck: Stuck) -> None:
    broker.consume("a.b", stuck, name="c")
    broker.publish(Message("a.b"))
    stuck.inside.acquire(timeout=LONG)
    life = broker._current_runtime()
    answers: list[Remainder] = []

    def as_a_signal_handler(seconds: float = 0.0) -> bool:
        if not answers:
            answers.append(broker.close())
        return False

    life._drain.has_work = as_a_signal_handler  # type: ignore[method-assign]

    remainder = broker.close(timeout=LONG)

    assert answers == [remainder]


def test_all_threads_of_a_closed_broker_end(make_broker: MakeBroker) -> None:
    before = set(threading.enumerate())
    broker = make_broker()

    async def handle(message: Message[Any]) -> None: ...

    broker.consume("a.b", handle, name="c")
    broker.publish(Message("a.b"))

    broker.close()

    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_start_that_comes_second_changes_nothing(broker: Broker) -> None:
    broker.start()
    before = set(threading.enumerate())

    broker._current_runtime()._start()

    assert broker.is_started
    assert set(threading.enumerate()) <= before


def test_a_dead_letter_of_an_async_handler_is_settled_though_all_threads_end(
    make_broker: MakeBroker,
) -> None:
    async def fail(message: Message[Any]) -> None:
        raise ValueError

    broker = make_broker(threads=1)
    go_on, entered = threading.Event(), threading.Event()

    def hold(message: Message[Any]) -> None:
        entered.set()
        go_on.wait(LONG)

    broker.consume("a.sync", hold, name="holds")
    broker.consume("a.async", fail, name="fails")
    broker.publish(Message("a.sync"))
    assert entered.wait(LONG)
    ready: Any = broker._current_runtime()._worker._ready
    broker.publish(Message("a.async"))
    wait_until(lambda: len(ready))  # the only thread that could settle it is busy
    closing = threading.Thread(target=lambda: broker.close(timeout=0))
    closing.start()
    wait_until(lambda: ready.closed)

    go_on.set()
    closing.join(LONG)

    stats = broker.stats().consumers["fails"]
    assert (stats.dead_lettered, stats.in_flight, stats.unaccounted) == (1, 0, 0)
