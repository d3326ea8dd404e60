"""How handlers run, end, fail and come again."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    DropReason,
    HandlerTimeoutError,
    Reject,
    RetryLater,
    Verdict,
)
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled

SOON = Retry(attempts=3, min_delay=0, max_delay=0.001)
Make = Callable[[Callable[[Message[Any]], Any]], Any]


def plain(handle: Callable[[Message[Any]], Any]) -> Any:
    return handle


def coroutine(handle: Callable[[Message[Any]], Any]) -> Any:
    async def ahandle(message: Message[Any]) -> None:
        await asyncio.sleep(0)
        handle(message)

    return ahandle


kinds = pytest.mark.parametrize("kind", [plain, coroutine])


class Saved(Event, type="handlers.saved"):
    number: int


@kinds
def test_a_handler_that_returns_has_succeeded(broker: Broker, kind: Make) -> None:
    handled: list[Any] = []
    broker.consume(Saved, kind(lambda m: handled.append(m.data)), name="c")

    broker.publish(Message("handlers.saved", b'{"number": 7}'))
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert handled == [Saved(number=7)]
    assert stats.processed == {("handlers.saved", Verdict.SUCCESS): 1}
    assert stats.last_success is not None
    assert sum(stats.wait.counts) == sum(stats.duration.counts) == 1


@kinds
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_without_a_retry_a_failure_is_a_dead_letter(
    broker: Broker, kind: Make, error: type[BaseException]
) -> None:
    def fail(message: Message[Any]) -> None:
        raise error("bad")

    broker.consume("a.b", kind(fail), name="c")
    message = Message[Any]("a.b", b"1")
    broker.publish(message)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert (stats.dead_lettered, stats.retries) == (2, 0)
    assert stats.exceptions == {error.__name__: 2}
    # Two threads may make dead letters of them in another order.
    [letter] = [each for each in broker.dead_letters() if each.message is message]
    assert (letter.consumer, letter.attempt) == ("c", 1)
    assert letter.error == f"{error.__name__}: bad"


@kinds
def test_a_failure_is_tried_again_up_to_its_attempts(
    make_broker: MakeBroker, kind: Make
) -> None:
    attempts, recorder = list[int](), Recorder()
    broker = make_broker(hooks=[recorder])

    def fail(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        raise ValueError

    broker.consume("a.b", kind(fail), name="c", retry=SOON)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert attempts == [1, 2, 3]
    assert (stats.retries, stats.dead_lettered) == (2, 1)
    assert stats.processed == {("a.b", Verdict.ERROR): 3}
    # Each thread tells a moment after its part: one may be late, or the last.
    wait_until(lambda: len(recorder.named("retrying")) == 2)
    wait_until(lambda: recorder.named("dead_lettered"))
    retried = {attempt for _, attempt, _ in recorder.named("retrying")}
    assert retried == {1, 2}
    assert [attempt for _, attempt, _ in recorder.named("dead_lettered")] == [3]


@kinds
def test_a_rejected_message_is_a_dead_letter_at_once(
    broker: Broker, kind: Make
) -> None:
    def reject(message: Message[Any]) -> None:
        raise Reject("never")

    broker.consume("a.b", kind(reject), name="c", retry=SOON)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert stats.processed == {("a.b", Verdict.REJECTED): 1}
    assert stats.dead_lettered == 1


@kinds
def test_retry_later_is_no_error_and_counts_no_attempt(
    broker: Broker, kind: Make
) -> None:
    attempts: list[int] = []

    def wait(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if len(attempts) < 4:
            raise RetryLater(0.001)

    broker.consume("a.b", kind(wait), name="c")
    broker.publish(Message("a.b"))
    wait_until(lambda: len(attempts) == 4)
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert attempts == [1, 1, 1, 1]
    assert stats.processed == {("a.b", Verdict.SUCCESS): 1}
    assert (stats.retries, stats.exceptions) == (3, {})


@pytest.mark.parametrize("seconds", [0, 1e-9, 0.1])
def test_retry_later_waits_long_enough_to_keep_no_thread_busy(
    make_broker: MakeBroker, seconds: float
) -> None:
    recorder, attempts = Recorder(), list[float]()
    broker = make_broker(hooks=[recorder])

    def wait(message: Message[Any]) -> None:
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise RetryLater(seconds)

    broker.consume("a.b", wait, name="c")
    broker.publish(Message("a.b"))
    wait_until(lambda: len(attempts) == 3)
    wait_until(lambda: len(recorder.named("retrying")) == 2)

    assert attempts[2] - attempts[0] >= 0.2
    outcomes = [outcome for *_, outcome in recorder.named("retrying")]
    assert {(each.delay, each.times) for each in outcomes} == {(0.1, 1), (0.1, 2)}


@pytest.mark.parametrize(
    ("seconds", "max_delay", "expected"),
    [(1e9, 300.0, 300.0), (1e9, 4000.0, 4000.0), (299.0, 0.0, 299.0)],
)
@pytest.mark.parametrize("asks", ["RetryLater", "Retry"])
def test_nothing_waits_in_memory_to_come_again_for_longer_than_is_promised(
    make_broker: MakeBroker,
    asks: str,
    seconds: float,
    max_delay: float,
    expected: float,
) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder], max_delay=max_delay)
    retry = Retry(min_delay=seconds, max_delay=seconds)

    def wait(message: Message[Any]) -> None:
        raise RetryLater(seconds) if asks == "RetryLater" else ValueError

    broker.consume("a.b", wait, name="c", retry=retry)
    broker.publish(Message("a.b"))
    wait_until(lambda: recorder.named("retrying"))

    [(_, _, outcome)] = recorder.named("retrying")
    assert outcome.delay == expected


def test_what_was_asked_for_again_and_has_not_come_is_told_at_the_stop(
    broker: Broker,
) -> None:
    def wait(message: Message[Any]) -> None:
        raise RetryLater(100)

    broker.consume("a.b", wait, name="c")
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].scheduled == 1)

    assert broker.close(timeout=0.1).dropped == {"a.b": 1}


@kinds
def test_a_body_that_cannot_be_decoded_dies_alone(broker: Broker, kind: Make) -> None:
    handled: list[Any] = []
    broker.consume(Saved, kind(lambda m: handled.append(m.data)), name="c", retry=SOON)

    for body in (b"{", b'{"number": 1}', b'{"number": "x"}', b"[" * 50_000):
        broker.publish(Message("handlers.saved", body))
    wait_until_settled(broker)

    assert handled == [Saved(number=1)]
    stats = broker.stats().consumers["c"]
    assert stats.processed["handlers.saved", Verdict.REJECTED] == 3
    assert stats.dead_lettered == 3


@kinds
def test_each_delivery_has_a_context_and_data_of_its_own(
    broker: Broker, kind: Make
) -> None:
    variable = contextvars.ContextVar("variable", default="fresh")
    seen: list[tuple[str, dict[str, int]]] = []

    def handle(message: Message[Any]) -> None:
        seen.append((variable.get(), dict(message.data)))
        variable.set("used")
        message.data["n"] = 99
        message.headers["x"] = "99"

    for name in ("one", "two"):
        broker.consume("a.b", kind(handle), name=name)
    variable.set("the publisher's")

    broker.publish(Message("a.b", b'{"n": 1}'))
    broker.publish(Message("a.b", b'{"n": 1}'))
    wait_until_settled(broker)

    assert seen == [("fresh", {"n": 1})] * 4


@kinds
def test_what_is_too_old_is_dropped_unhandled(broker: Broker, kind: Make) -> None:
    handled: list[Any] = []
    broker.consume("a.b", kind(handled.append), name="c", max_age=600)
    long_ago = time.time() - 601

    broker.publish(Message("a.b", number="x", made=long_ago))
    broker.publish(Message("a.b", number="x", made=long_ago + 300))
    broker.publish(Message("a.b", number="x", made=long_ago, delay=0.001))
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert stats.dropped == {("a.b", DropReason.EXPIRED): 2}
    assert len(handled) == 1


def test_an_async_handler_is_cancelled_at_its_timeout(broker: Broker) -> None:
    cancelled: list[bool] = []

    async def wait(message: Message[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    broker.consume("a.b", wait, name="c", timeout=0.01)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert cancelled == [True]
    stats = broker.stats().consumers["c"]
    assert stats.processed == {("a.b", Verdict.TIMEOUT): 1}
    assert stats.exceptions == {HandlerTimeoutError.__name__: 1}


def test_a_timeout_of_the_handlers_own_is_an_error(broker: Broker) -> None:
    async def give_up(message: Message[Any]) -> None:
        raise TimeoutError

    broker.consume("a.b", give_up, name="c", timeout=60)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].processed == {("a.b", Verdict.ERROR): 1}


@pytest.mark.parametrize("how", ["itself", "another"])
def test_a_handler_that_cancels_is_a_failure_not_a_loop(
    broker: Broker, how: str
) -> None:
    calls: list[int] = []

    async def cancel(message: Message[Any]) -> None:
        calls.append(1)
        task = asyncio.current_task()
        if how == "another" or task is None:
            raise asyncio.CancelledError
        task.cancel()
        await asyncio.sleep(0)

    broker.consume("a.b", cancel, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert calls == [1]
    assert broker.stats().consumers["c"].dead_lettered == 1


def test_async_handlers_run_concurrently_up_to_their_limit(broker: Broker) -> None:
    inside, most, go_on = [0], [0], threading.Event()

    async def handle(message: Message[Any]) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        await asyncio.to_thread(go_on.wait, LONG)
        inside[0] -= 1

    broker.consume("a.b", handle, name="c", concurrency=5)
    for _ in range(20):
        broker.publish(Message("a.b"))
    wait_until(lambda: inside[0] == 5)
    go_on.set()
    wait_until_settled(broker)

    assert most[0] == 5


def test_async_handlers_of_one_key_wait_for_one_another(broker: Broker) -> None:
    handled: list[tuple[str | None, int]] = []
    first_is_in, go_on = threading.Event(), threading.Event()

    async def handle(message: Message[Any]) -> None:
        if message.data == 0:
            first_is_in.set()
            await asyncio.to_thread(go_on.wait, LONG)
        handled.append((message.key, message.data))

    broker.consume("a.b", handle, name="c", ordered_by_key=True, concurrency=3)
    broker.publish(Message("a.b", b"0", key="k"))
    first_is_in.wait(LONG)
    broker.publish(Message("a.b", b"1", key="k"))
    broker.publish(Message("a.b", b"2", key="other"))
    wait_until(lambda: handled == [("other", 2)])
    go_on.set()
    wait_until_settled(broker)

    assert handled == [("other", 2), ("k", 0), ("k", 1)]


def test_a_sync_handler_that_overruns_is_reported_once_and_left_alone(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the test looks for what overruns, and when no thread is on its way.
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 10 * LONG)
    recorder, go_on = Recorder(), threading.Event()
    entered = threading.Semaphore(0)

    def hold(message: Message[Any]) -> None:
        entered.release()
        go_on.wait(LONG)

    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", hold, name="c", timeout=0.01)
    broker.consume("a.b", hold, name="patient", timeout=10 * LONG)
    broker.start()
    worker: Any = broker._current_runtime()._worker
    wait_until(lambda: len(worker._ready._sleepers) == 8 and not worker._ready)
    broker.publish(Message("a.b"))
    for _ in range(2):
        assert entered.acquire(timeout=LONG)

    wait_until(lambda: worker._supervise() or recorder.named("overran"))
    for _ in range(3):
        worker._supervise()

    go_on.set()
    wait_until_settled(broker)

    ((name, seconds),) = recorder.named("overran")
    assert name == "c"
    assert seconds > 0.01
    assert broker.stats().consumers["c"].succeeded == 1
