"""What the program around the bus hears of attempts, and what of its bugs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    DeadLettered,
)
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.environment import Environment, ThreadScope
from django_gomq.bus.worker.processor import Processor
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder, Watcher
from tests.bus.waiting import wait_until, wait_until_settled

SOON = Retry(attempts=3, min_delay=0, max_delay=0.001)


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
    wait_until(lambda: recorder.named("failed"))
    told = len(recorder.named("failed"))

    broker.publish(Message("a.b"))
    wait_until_settled(broker)
    wait_until(lambda: len(recorder.named("failed")) > told)

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


# ------------------------------------------------------------- without a program


def handle(message: object) -> str:
    return "handled"


@pytest.mark.parametrize("using", [True, "other"])
def test_a_bare_program_has_no_transactions(using: bool | str) -> None:
    assert Environment().in_transaction(handle, using) is handle


def test_a_bare_program_does_nothing_around_a_handler() -> None:
    environment = Environment()

    scope = environment.thread_scope()
    scope.before()
    scope.after()
    environment.thread_idle()

    assert (vars(environment), vars(scope)) == ({}, {})


def test_a_bare_program_says_that_there_is_nothing_to_do_around_handlers() -> None:
    assert not Environment().thread_scope().is_needed


def test_a_bare_program_does_nothing_around_an_async_handler() -> None:
    environment = Environment()

    async def surround() -> None:
        await environment.before_async_handler()
        await environment.after_async_handler()
        await environment.loop_ending()

    asyncio.run(surround())

    assert vars(environment) == {}
