"""How handlers run, end, fail and come again."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    BatchFailed,
    DeadLettered,
    Delivery,
    DropReason,
    HandlerTimeoutError,
    Reject,
    RetryAfter,
    RetryLater,
    Verdict,
)
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.async_loop import AsyncLoop
from django_gomq.bus.worker.environment import Environment, ThreadScope
from django_gomq.bus.worker.processor import Processor
from django_gomq.bus.worker.runner import ConsumerRunner
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder, Watcher
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
    letter = broker.dead_letters()[0]
    assert letter.message is message
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
    assert [attempt for _, attempt, _ in recorder.named("retrying")] == [1, 2]
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
    broker.consume("a.b", kind(handled.append), name="c", max_age=10)
    long_ago = time.time() - 11

    broker.publish(Message("a.b", made=long_ago))
    broker.publish(Message("a.b", made=long_ago + 5))
    broker.publish(Message("a.b", made=long_ago, delay=0.001))
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
        await asyncio.to_thread(go_on.wait, 10)
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
            await asyncio.to_thread(go_on.wait, 10)
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
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 0.01)
    recorder, go_on = Recorder(), threading.Event()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", lambda _: go_on.wait(LONG), name="c", timeout=0.01)
    broker.consume("a.b", lambda _: go_on.wait(LONG), name="patient", timeout=60)
    broker.publish(Message("a.b"))
    wait_until(lambda: recorder.named("overran"))
    ticks: list[int] = []
    broker._current_runtime()._worker.timers.every_second(lambda: ticks.append(1))
    wait_until(lambda: len(ticks) > 3)

    go_on.set()
    wait_until_settled(broker)

    ((name, seconds),) = recorder.named("overran")
    assert name == "c"
    assert seconds > 0.01
    assert broker.stats().consumers["c"].succeeded == 1


# --------------------------------------------------------------------------- batch


def test_a_batch_is_handled_at_once_when_it_is_full(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume("a.b", lambda b: sizes.append(len(b)), name="c", batch=3, linger=60)

    for _ in range(3):
        broker.publish(Message("a.b"))

    wait_until(lambda: sizes == [3])


def test_a_batch_that_stays_short_is_handled_after_its_linger(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume(
        "a.b", lambda b: sizes.append(len(b)), name="c", batch=100, linger=0.02
    )

    for _ in range(3):
        broker.publish(Message("a.b"))

    wait_until(lambda: sum(sizes) == 3)
    assert broker._current_runtime()._worker._lingering == set()


def test_a_full_channel_does_not_linger(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume(
        "a.b",
        lambda b: sizes.append(len(b)),
        name="c",
        batch=100,
        capacity=2,
        linger=60,
        overflow="backpressure",
    )

    for _ in range(4):
        broker.publish(Message("a.b"))

    wait_until(lambda: sum(sizes) == 4)


def test_what_waited_through_a_linger_may_be_gone_at_its_end(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c", batch=9, linger=0.01)
    broker.start()
    worker: Any = broker._current_runtime()._worker
    subscription = broker._current_runtime().subscription("c")

    subscription.notify()

    wait_until(lambda: not worker._lingering)
    assert len(subscription.free_slots) == 1


def test_a_batch_without_linger_takes_what_is_there(broker: Broker) -> None:
    sizes: list[int] = []
    broker.consume("a.b", lambda b: sizes.append(len(b)), name="c", batch=4)
    broker.pause("c")
    for _ in range(10):
        broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 10)

    broker.resume("c")

    wait_until(lambda: sizes == [4, 4, 2])


def publish_numbers(broker: Broker, count: int) -> None:
    broker.pause("c")
    for number in range(count):
        broker.publish(Message("a.b", b"%d" % number))
    wait_until(lambda: broker.stats().consumers["c"].depth == count)
    broker.resume("c")


def test_of_a_failed_batch_each_member_is_tried_alone(make_broker: MakeBroker) -> None:
    recorder, calls = Recorder(), list[list[int]]()
    broker = make_broker(hooks=[recorder])

    def handle(batch: list[Message[Any]]) -> None:
        calls.append([message.data for message in batch])
        if 1 in calls[-1]:
            raise ValueError

    broker.consume("a.b", handle, name="c", batch=3)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert calls == [[0, 1, 2], [0], [1], [2]]
    assert (stats.succeeded, stats.dead_lettered) == (2, 1)
    ((name, size, error),) = recorder.named("batch_failed")
    assert (name, size, type(error)) == ("c", 3, ValueError)


def test_a_handler_may_say_which_members_failed(broker: Broker) -> None:
    attempts: dict[int, list[int]] = {}

    def handle(batch: list[Message[Any]]) -> None:
        for message in batch:
            attempts.setdefault(message.data, []).append(message.attempt)
        raise BatchFailed({m.id: ValueError() for m in batch if m.data == 1})

    broker.consume("a.b", handle, name="c", batch=3, retry=SOON)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    assert attempts == {0: [1], 1: [1, 2, 3], 2: [1]}
    assert broker.stats().consumers["c"].dead_lettered == 1


def test_a_whole_batch_may_be_put_off(broker: Broker) -> None:
    calls: list[int] = []

    def handle(batch: list[Message[Any]]) -> None:
        calls.append(len(batch))
        if len(calls) == 1:
            raise RetryLater(0.001)

    broker.consume("a.b", handle, name="c", batch=3)
    publish_numbers(broker, 3)
    wait_until_settled(broker)

    assert calls[0] == 3
    assert sum(calls[1:]) == 3
    assert broker.stats().consumers["c"].succeeded == 3


def test_old_members_leave_a_batch_before_it_is_handled(broker: Broker) -> None:
    calls: list[list[int]] = []
    broker.consume(
        "a.b",
        lambda batch: calls.append([m.data for m in batch]),
        name="c",
        batch=3,
        max_age=10,
    )
    broker.pause("c")
    now = time.time()
    for number, age in enumerate((0, 20, 0)):
        broker.publish(Message("a.b", b"%d" % number, made=now - age))
    broker.publish(Message("a.b", made=1.0))
    wait_until(lambda: broker.stats().consumers["c"].depth == 4)

    broker.resume("c")
    wait_until_settled(broker)

    assert calls == [[0, 2]]
    assert broker.stats().consumers["c"].dropped == {("a.b", DropReason.EXPIRED): 2}


# ------------------------------------------------------------- environment, hooks


class BrokenHost(Environment, ThreadScope):
    """Fails where it is told to."""

    is_needed = True

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def _act(self, name: str) -> None:
        if name == self._fails_in:
            raise OSError(name)

    def thread_scope(self) -> ThreadScope:
        return self

    def before(self) -> None:
        self._act("before")

    def after(self) -> None:
        self._act("after")

    async def before_async_handler(self) -> None:
        self._act("before")

    async def after_async_handler(self) -> None:
        self._act("after")

    def thread_idle(self) -> None:
        self._act("idle")


def broker_on(
    environment: Environment, make_broker: MakeBroker, *hooks: Recorder
) -> Broker:
    return make_broker(
        hooks=hooks,
        get_worker=lambda: Worker(2, environment=environment, hooks=hooks),
    )


async def areturn(message: Message[Any]) -> None: ...


RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sync": (lambda _: None, {}),
    "aged": (lambda _: None, {"max_age": 60}),  # not the plain way
    "async": (areturn, {}),
    "batch": (lambda _: None, {"batch": 2}),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_host_that_fails_before_a_handler_fails_the_attempt(
    make_broker: MakeBroker, run: str
) -> None:
    handler, options = RUNS[run]
    broker = broker_on(BrokenHost("before"), make_broker)
    broker.consume("a.b", handler, name="c", **options)

    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].exceptions == {"OSError": 1}
    assert broker.stats().consumers["c"].dead_lettered == 1


@pytest.mark.parametrize("run", RUNS)
def test_a_host_that_fails_after_a_handler_changes_nothing(
    make_broker: MakeBroker, run: str
) -> None:
    recorder, (handler, options) = Recorder(), RUNS[run]
    broker = broker_on(BrokenHost("after"), make_broker, recorder)
    broker.consume("a.b", handler, name="c", **options)

    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].succeeded == 1
    assert [part for part, _ in recorder.named("failed")] == ["environment"]


def test_a_thread_with_nothing_to_do_tells_its_host(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 0.01)
    recorder = Recorder()
    broker = broker_on(BrokenHost("idle"), make_broker, recorder)
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()
    wait_until(lambda: len(recorder.named("failed")) == 2)

    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].succeeded == 1
    assert {part for part, _ in recorder.named("failed")} == {"environment"}


def test_an_atomic_handler_is_wrapped_by_the_host(make_broker: MakeBroker) -> None:
    class Transactions(Environment):
        def in_transaction(self, handler: Any, using: bool | str) -> Any:
            return lambda message: calls.append((using, handler(message)))

    calls: list[Any] = []
    broker = broker_on(Transactions(), make_broker)
    broker.consume("a.b", lambda _: "done", name="c", atomic="other")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert calls == [("other", "done")]
    assert Environment().in_transaction(print, using=True) is print


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("trace_id", [None, "t1"])
def test_watches_surround_each_attempt(
    make_broker: MakeBroker, run: str, trace_id: str | None
) -> None:
    watcher, (handler, options) = Watcher(), RUNS[run]
    watcher.trace_id = trace_id
    broker = make_broker(hooks=[watcher])
    broker.consume("a.b", handler, name="c", **options)
    message = Message[Any]("a.b")

    broker.publish(message)
    wait_until_settled(broker)

    (attempt,) = watcher.named("attempting")
    assert (attempt.broker, attempt.backend, attempt.number) == ("default", "memory", 1)
    assert [one.id for one in attempt.messages] == [message.id]
    assert attempt.wait_seconds >= 0
    assert len(watcher.named("begin")) == len(watcher.named("end")) == 1
    exemplars = broker.stats().consumers["c"].duration.exemplars
    kept = [one.trace_id for one in exemplars.values()]
    assert kept == ([trace_id] if trace_id and run != "batch" else [])


def test_a_watch_of_a_failed_batch_hears_of_the_failure(
    make_broker: MakeBroker,
) -> None:
    watcher = Watcher()
    broker = make_broker(hooks=[watcher])

    def fail(batch: list[Message[Any]]) -> None:
        raise ValueError

    broker.consume("a.b", fail, name="c", batch=2)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    ((outcome,),) = watcher.named("end")
    assert isinstance(outcome, DeadLettered)


FAILED = {"sync": [], "aged": ["processor"], "async": ["loop"], "batch": ["processor"]}


@pytest.mark.parametrize("run", RUNS)
def test_a_bug_in_the_bus_fails_the_attempt_and_loses_nothing(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    recorder, (handler, options) = Recorder(), RUNS[run]
    broker = make_broker(
        hooks=[recorder], get_worker=lambda: Worker(2, hooks=[recorder])
    )
    broker.consume("a.b", handler, name="c", retry=SOON, **options)

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("injected")

    name = "DeliveredMessage" if run == "sync" else "receive"
    monkeypatch.setattr(f"django_gomq.bus.worker.processor.{name}", fail)
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].succeeded == 1)
    wait_until_settled(broker)

    assert [part for part, _ in recorder.named("failed")] == FAILED[run]
    assert broker.stats().consumers["c"].retries == 1


@pytest.mark.parametrize("run", RUNS)
def test_a_bug_after_the_handler_fails_the_attempt_and_loses_nothing(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    handler, options = RUNS[run]
    broker, calls = broker_on(Environment(), make_broker), list[int]()

    def fail_first(message: Message[Any] | list[Message[Any]]) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError
        return handler(message)

    async def afail_first(message: Message[Any]) -> None:
        await fail_first(message)

    broker.consume(
        "a.b",
        afail_first if run == "async" else fail_first,
        name="c",
        retry=SOON,
        **options,
    )

    decide, decided = Processor.decide, list[int]()

    def fail(*arguments: Any) -> Any:
        decided.append(1)
        if len(decided) == 1:
            raise RuntimeError("injected")
        return decide(*arguments)

    monkeypatch.setattr(Processor, "decide", fail)
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].succeeded == 1)
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].retries == 1


# ------------------------------------------------------------------------- threads


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
    subscription = broker._current_runtime().subscription("c")

    subscription.paused = False
    subscription.notify()  # a single wake-up: each thread must wake the next

    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 8


def test_no_more_threads_than_the_concurrency_handle_at_once(broker: Broker) -> None:
    lock, inside, most = threading.Lock(), [0], [0]

    def handle(message: Message[Any]) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.001)
        with lock:
            inside[0] -= 1

    broker.consume("a.b", handle, name="c", concurrency=2)
    for _ in range(60):
        broker.publish(Message("a.b"))
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
    publish_numbers(broker, 50)
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
    runner._has_ended = True
    loop.call_soon_threadsafe(loop.stop)
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


# ----------------------------------------------------------------------- overflow


def numbers_handled(broker: Broker, priorities: list[int], **options: Any) -> list[int]:
    handled: list[int] = []
    broker.consume("a.b", lambda m: handled.append(m.data), name="c", **options)
    broker.pause("c")
    for number, priority in enumerate(priorities):
        broker.publish(Message("a.b", b"%d" % number, priority=priority))
        wait_until(lambda: broker.stats().queues["a.b"].depth == 0)
    broker.resume("c")
    wait_until_settled(broker)
    return handled


def test_by_default_the_newest_is_dropped(make_broker: MakeBroker) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])

    handled = numbers_handled(broker, [5, 5, 5, 9], capacity=2)

    assert handled == [0, 1]
    assert recorder.named("dropped") == [("c", 1, DropReason.CHANNEL_FULL)] * 2
    assert broker.stats().consumers["c"].dropped == {
        ("a.b", DropReason.CHANNEL_FULL): 2
    }


def test_the_oldest_of_the_lowest_priority_may_go_instead(broker: Broker) -> None:
    handled = numbers_handled(
        broker, [5, 1, 1, 5, 9], capacity=3, overflow="drop_oldest"
    )

    assert handled == [4, 0, 3]
    assert broker.stats().consumers["c"].dropped == {("a.b", DropReason.EVICTED): 2}


@pytest.mark.parametrize("options", [{}, {"batch": 2}])
def test_a_sync_handler_that_returns_a_coroutine_fails_aloud(
    broker: Broker, options: dict[str, Any]
) -> None:
    broker.consume("a.b", lambda _: areturn(Message("a.b")), name="c", **options)

    broker.publish(Message("a.b"))

    wait_until(broker.dead_letters)
    assert "make it 'async def'" in broker.dead_letters()[0].error


def test_what_is_less_urgent_than_all_that_waits_is_dropped_itself(
    broker: Broker,
) -> None:
    handled = numbers_handled(broker, [9, 9, 1], capacity=2, overflow="drop_oldest")

    assert handled == [0, 1]
    assert broker.stats().consumers["c"].dropped == {
        ("a.b", DropReason.CHANNEL_FULL): 1
    }


def test_many_arrivals_evict_as_many_as_they_are(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", capacity=3, overflow="drop_oldest")
    subscription = broker._current_runtime().subscription("c")
    subscription.paused = True
    deliveries = [Delivery(Message("a.b", b"%d" % n), 0) for n in range(5)]
    subscription.offer(deliveries[:3])

    subscription.offer(deliveries[3:])

    left = subscription.take_all()
    assert [one.message.body for one in left] == [b"2", b"3", b"4"]
    subscription.channel.release(3)


def test_a_retry_outcome_names_its_verdict() -> None:
    assert RetryAfter(1, None).verdict is Verdict.ERROR
