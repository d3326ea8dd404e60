from __future__ import annotations

import asyncio
import time
from importlib import metadata
from threading import Event
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import DropReason, Reject, RetryLater
from django_gomq.bus.errors import BrokerClosedError, NoConsumerError, QueueFullError
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.process.fork import Process
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.worker import Worker
from django_gomq.observability.metrics import collector, install

from .conftest import MakeBroker
from .live import (
    WAIT_SECONDS,
    do_nothing,
    publish,
    wait_handled,
    wait_quiet,
    wait_until,
)
from .numbers import Page

AT_ONCE = Retry(attempts=2, min_delay=0.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


class Gate:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = Event()
        self.open = Event()

    def handle(self, message: object) -> None:
        self.entered.set()
        assert self.open.wait(WAIT_SECONDS)


_postponed: set[str] = set()


def difficult(message: Message[Any]) -> None:
    """Succeeds, fails, fails once, rejects or asks for another time, by priority."""
    match message.priority, message.attempt:
        case (1, _) | (2, 1):
            raise ValueError("fails")
        case 3, _:
            raise Reject("never")
        case 4, _ if message.id not in _postponed:
            _postponed.add(message.id)
            raise RetryLater(0.02)


def test_what_was_published_is_what_became_of_it(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker()
    broker.consume(["a", "b"], difficult, name="difficult", retry=AT_ONCE)
    broker.consume("a", do_nothing, name="small", capacity=3)
    broker.consume("*", do_nothing, name="paused", capacity=5, overflow="drop_oldest")
    broker.pause("paused")
    broker.pause("small")
    install(lambda: [broker], registry=registry)
    for priority in range(5):
        publish(broker, "a", 10, priority=priority)
        publish(broker, "b", 10, priority=priority)
    wait_handled(broker, "difficult")
    broker.resume("small")
    wait_handled(broker, "difficult", "small")

    page = Page(registry)

    dispatched = {
        event: page.sum("messages_published_total", event=event)
        - page.sum("queue_depth", event=event)
        - page.sum("messages_delayed", event=event)
        for event in ("a", "b")
    }
    assert dispatched == {"a": 50, "b": 50}
    assert page.sum("messages_dropped_total", consumer="small") == 47
    assert page.sum("messages_dropped_total", consumer="paused") == 95
    assert page.sum("messages_dead_lettered_total", consumer="difficult") == 40
    for consumer, events in {"difficult": "ab", "small": "a", "paused": "ab"}.items():
        accounted = (
            page.sum("messages_processed_total", consumer=consumer, outcome="success")
            + page.sum("messages_dropped_total", consumer=consumer)
            + page.sum("messages_dead_lettered_total", consumer=consumer)
            + page.sum("channel_depth", consumer=consumer)
            + page.sum("messages_scheduled", consumer=consumer)
            + page.sum("messages_in_flight", consumer=consumer)
        )
        assert accounted == sum(dispatched[event] for event in events)


def test_every_attempt_is_counted_by_what_came_of_it(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker()
    broker.consume("a", difficult, name="difficult", retry=AT_ONCE)
    install(lambda: [broker], registry=registry)
    for priority in range(5):
        publish(broker, "a", priority=priority)
    wait_quiet(broker)

    page = Page(registry)

    outcomes = {
        outcome: page.sum("messages_processed_total", event="a", outcome=outcome)
        for outcome in ("success", "error", "rejected")
    }
    assert outcomes == {"success": 3, "error": 3, "rejected": 1}
    postponed = page.sum("handler_duration_seconds_count") - sum(outcomes.values())
    assert postponed >= 1
    assert page.sum("message_retries_total") == 2 + postponed
    assert page.sum("messages_dead_lettered_total") == 2
    assert page.sum("handler_exceptions_total", error_type="ValueError") == 3
    assert page.sum("handler_exceptions_total", error_type="Reject") == 1


async def hang(message: object) -> None:
    await asyncio.Event().wait()


def test_a_cancelled_async_handler_counts_as_a_timeout(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker()
    broker.consume("a", hang, name="hangs", timeout=0.01)
    install(lambda: [broker], registry=registry)
    publish(broker, "a")
    wait_quiet(broker)

    page = Page(registry)

    assert page.sum("messages_processed_total", outcome="timeout") == 1
    assert page.sum("handler_exceptions_total", error_type="HandlerTimeoutError") == 1


def test_a_consumer_says_how_grave_its_losses_are(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker()
    broker.consume("a", do_nothing, name="pays", severity="critical")
    broker.consume("a", do_nothing, name="counts")
    broker.start()
    install(lambda: [broker], registry=registry)

    page = Page(registry)

    assert page.sum("consumer_info", consumer="pays", severity="critical") == 1
    assert page.sum("consumer_info", consumer="counts", severity="warning") == 1


def test_gauges_show_what_is_held_now(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    workers: list[Worker] = [Worker(threads=3)]
    broker = make_broker(get_worker=lambda: workers[0])
    gate = Gate()
    broker.consume("a", gate, name="held", capacity=4, overflow="backpressure")
    install(lambda: [broker], lambda: workers[0], registry=registry)
    publish(broker, "a", 6)
    publish(broker, "a", delay=100.0)
    assert gate.entered.wait(WAIT_SECONDS)
    wait_until(lambda: broker.stats().consumers["held"].depth == 3)
    wait_until(lambda: broker.stats().queues["a"].depth == 2)

    page = Page(registry)

    assert page.sum("messages_in_flight") == 1
    assert page.sum("channel_depth") == 3
    assert page.sum("channel_capacity") == 4
    assert page.values("channel_oldest_age_seconds")[0] > 0
    assert page.sum("queue_depth") == 2
    assert page.sum("queue_capacity") == 1000
    assert page.sum("messages_delayed") == 1
    assert page.values("queue_oldest_age_seconds")[0] > 0
    assert page.values("channel_fill_ratio") == [1]
    assert page.values("handler_running_seconds")[0] > 0
    assert page.values("threads_busy_ratio") == [1 / 3]
    assert page.sum("messages_published_total") == 7
    assert page.sum("threads") == 3
    assert page.sum("threads_busy") == 1
    gate.open.set()
    broker.close(timeout=0)
    workers[0].stop(timeout=WAIT_SECONDS)
    assert Page(registry).sum("threads_busy") == 0


def test_a_thread_that_should_run_and_does_not_is_counted(
    make_broker: MakeBroker,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(threads=3)
    broker = make_broker(get_worker=lambda: worker)
    install(lambda: [broker], lambda: worker, registry=registry)
    broker.start()
    assert Page(registry).values("threads_missing") == [0, 0, 0, 0]

    monkeypatch.setattr("django_gomq.bus.process.timers.Timers.is_alive", False)

    page = Page(registry)
    assert page.sum("threads_missing", thread="timers") == 1
    assert page.sum("threads_missing") == 1
    worker.stop(timeout=1)
    assert Page(registry).sum("threads_missing") == 0


def test_a_type_with_consumers_has_no_series_of_what_nobody_consumes(
    broker: Broker, registry: CollectorRegistry
) -> None:
    broker.consume("a", do_nothing, name="runs")
    install(lambda: [broker], registry=registry)
    with pytest.raises(NoConsumerError):
        broker.publish(Message(type="b"))
    publish(broker, "a")

    page = Page(registry)

    assert page.labels("messages_unconsumed_total", "event") == {"_other"}
    broker.consume("b", do_nothing, name="late")
    assert Page(registry).sum("messages_unconsumed_total", event="b") == 1


def test_a_blocked_event_loop_shows_until_it_goes_on(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    worker = Worker(threads=1)
    broker = make_broker(get_worker=lambda: worker)
    gate = Gate()

    async def block(message: object) -> None:
        gate.handle(message)

    broker.consume("a", block, name="blocks")
    install(lambda: [broker], lambda: worker, registry=registry)
    publish(broker, "a")

    wait_until(lambda: Page(registry).values("loop_lag_seconds")[0] > 0)
    gate.open.set()
    wait_until(lambda: Page(registry).values("loop_lag_seconds") == [0])
    broker.close(timeout=0)
    worker.stop(timeout=1)


def test_a_message_between_two_attempts_is_scheduled(
    broker: Broker, registry: CollectorRegistry
) -> None:
    later = Retry(attempts=2, min_delay=60.0, jitter=False)
    broker.consume("a", difficult, name="fails", retry=later)
    install(lambda: [broker], registry=registry)
    publish(broker, "a", priority=1)
    wait_until(lambda: broker.stats().consumers["fails"].scheduled)

    page = Page(registry)

    assert page.sum("messages_scheduled") == 1
    assert page.sum("message_retries_total") == 1
    assert page.sum("messages_in_flight") == page.sum("channel_depth") == 0


def test_a_paused_consumer_says_so(broker: Broker, registry: CollectorRegistry) -> None:
    broker.consume("a", do_nothing, name="paused")
    broker.consume("a", do_nothing, name="runs")
    broker.pause("paused")
    install(lambda: [broker], registry=registry)

    page = Page(registry)

    assert page.sum("consumer_paused", consumer="paused") == 1
    assert page.sum("consumer_paused", consumer="runs") == 0


def test_a_success_has_a_time(broker: Broker, registry: CollectorRegistry) -> None:
    broker.consume("a", do_nothing, name="runs")
    install(lambda: [broker], registry=registry)
    before = time.time()
    assert Page(registry).values("last_success_timestamp_seconds") == []

    publish(broker, "a")
    wait_quiet(broker)

    [told] = Page(registry).values("last_success_timestamp_seconds")
    assert before <= told <= time.time()


def test_histograms_are_cumulative_and_count_every_attempt(
    broker: Broker, registry: CollectorRegistry
) -> None:
    broker.consume("a", lambda _: time.perf_counter(), name="runs")
    install(lambda: [broker], registry=registry)
    publish(broker, "a", 50)
    wait_quiet(broker)

    page = Page(registry)

    for name in ("handler_duration_seconds", "message_wait_seconds"):
        buckets = page.values(f"{name}_bucket")
        assert buckets == sorted(buckets)
        assert len(buckets) == 15
        assert buckets[-1] == page.sum(f"{name}_count") == 50
        assert 0 < page.values(f"{name}_sum")[0] < 50 * WAIT_SECONDS


def test_refusals_are_counted_by_reason(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker(capacity=1)
    broker.consume("a", do_nothing, name="full", capacity=1, overflow="backpressure")
    broker.pause("full")
    install(lambda: [broker], registry=registry)
    publish(broker, "a", 2)
    with pytest.raises(QueueFullError):
        broker.publish(Message(type="a"))
    with pytest.raises(NoConsumerError):
        broker.publish(Message(type="nobody.cares"))
    broker.count_rolled_back("a")
    broker.close(timeout=0)
    with pytest.raises(BrokerClosedError):
        broker.publish(Message(type="a"))

    page = Page(registry)

    refused = {
        reason: page.sum("messages_refused_total", event="a", reason=reason)
        for reason in ("queue_full", "timeout", "closed", "not_running")
    }
    assert refused == {"queue_full": 1, "timeout": 0, "closed": 1, "not_running": 0}
    assert page.sum("messages_unconsumed_total", event="_other") == 1
    assert page.sum("messages_rolled_back_total", event="a") == 1
    assert page.sum("messages_dropped_total", reason=DropReason.SHUTDOWN) == 2


@pytest.mark.parametrize("undeclared", [0, 3, 200])
def test_names_made_from_data_share_one_label_but_for_so_many(
    broker: Broker, registry: CollectorRegistry, undeclared: int
) -> None:
    broker.consume("made.*", do_nothing, name="all")
    install(lambda: [broker], registry=registry, undeclared=undeclared)
    for number in range(250):
        publish(broker, f"made.from_{number}")
    wait_quiet(broker)

    page = Page(registry)

    for name in ("messages_published_total", "messages_processed_total"):
        assert len(page.labels(name, "event")) == undeclared + 1
        assert page.sum(name, event="_other") == 250 - undeclared
    assert page.sum("messages_processed_total", outcome="success") == 250
    assert page.sum("messages_processed_total", event="_other", outcome="error") == 0


def test_what_shares_a_label_adds_up(make_broker: MakeBroker) -> None:
    broker, registry = make_broker(capacity=2), CollectorRegistry()
    broker.consume("made.*", do_nothing, name="all", overflow="backpressure")
    install(lambda: [broker], registry=registry)
    for event in ("made.a", "made.b"):
        publish(broker, event)
        broker.count_rolled_back(event)
    capacity = Page(registry).sum("queue_capacity", event="_other")
    broker.close(timeout=0)
    for event in ("made.a", "made.b"):
        with pytest.raises(BrokerClosedError):
            broker.publish(Message(type=event))

    page = Page(registry)

    where = {"event": "_other"}
    assert page.sum("messages_published_total", **where) == 2
    assert page.sum("messages_rolled_back_total", **where) == 2
    assert page.sum("messages_refused_total", reason="closed", **where) == 2
    assert capacity == 2 * 2


def test_a_declared_type_is_a_label_whoever_consumes_it(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker(declared=lambda: ["made.known"])
    broker.consume("made.*", do_nothing, name="all")
    install(lambda: [broker], registry=registry)
    publish(broker, "made.known")
    wait_quiet(broker)

    name = "messages_processed_total"

    assert Page(registry).sum(name, event="made.known", outcome="success") == 1


def test_the_dispatcher_counts_as_down_only_where_it_should_run(
    broker: Broker, registry: CollectorRegistry
) -> None:
    broker.consume("a", do_nothing, name="runs")
    install(lambda: [broker], registry=registry)
    assert Page(registry).sum("dispatcher_up", broker="default") == 1
    broker.start()
    assert Page(registry).sum("dispatcher_up") == 1

    broker._runtime.backend._dispatcher.loop.is_up = False  # type: ignore[union-attr]

    assert Page(registry).sum("dispatcher_up") == 0
    broker.close(timeout=0)
    assert Page(registry).sum("dispatcher_up") == 1


def test_a_broker_whose_timers_do_not_run_is_down(
    make_broker: MakeBroker,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(threads=1)
    broker = make_broker(get_worker=lambda: worker)
    install(lambda: [broker], lambda: worker, registry=registry)
    assert Page(registry).sum("dispatcher_up") == 1
    broker.start()
    assert Page(registry).sum("dispatcher_up") == 1

    with monkeypatch.context() as patch:
        patch.setattr("django_gomq.bus.process.timers.Timers.is_alive", False)
        assert Page(registry).sum("dispatcher_up") == 0

    worker.stop(timeout=5)
    broker.close(timeout=0)
    assert Page(registry).sum("dispatcher_up") == 1


def test_what_observers_were_not_told_is_counted(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker(hooks=[Broken()])
    housekeeping = broker.hooks.housekeeping
    assert housekeeping is not None
    install(lambda: [broker], registry=registry)
    before = Page(registry).sum("telemetry_errors_total", kind="Housekeeping")

    housekeeping.lost += 3

    after = Page(registry).sum("telemetry_errors_total", kind="Housekeeping")
    assert (before, after) == (0, 3)


def test_brokers_stand_beside_each_other(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    one, two = make_broker("one"), make_broker("two")
    for broker in (one, two):
        broker.consume("a", do_nothing, name="runs")
    install(lambda: [one, two], registry=registry)
    publish(one, "a", 2)
    publish(two, "a", 3)
    wait_quiet(one, two)

    page = Page(registry)

    assert page.sum("messages_published_total", broker="one") == 2
    assert page.sum("messages_published_total", broker="two") == 3


class Broken(Hook):
    def unconsumed(self, broker: str, event: str) -> None:
        raise RuntimeError("an observer with a bug")


def test_the_failures_of_observers_are_counted(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker(hooks=[Broken()])
    worker = Worker(hooks=[Broken()])
    worker.hooks.notify(lambda hook: hook.unconsumed("default", "a"))
    install(lambda: [broker], lambda: worker, registry=registry)
    for _ in range(2):
        with pytest.raises(NoConsumerError):
            broker.publish(Message(type="a"))
    assert broker.hooks.flush(30)
    assert worker.hooks.flush(30)

    page = Page(registry)

    assert page.sum("telemetry_errors_total", kind="Broken") == 3
    assert page.sum("telemetry_errors_total", kind="BusCollector") == 0


def test_the_page_says_which_version_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[set[str]] = []
    for version in (lambda name: "1.2.3", metadata_is_missing):
        registry = CollectorRegistry()
        monkeypatch.setattr(metadata, "version", version)
        install(list, registry=registry)
        found.append(Page(registry).labels("build_info", "version"))

    assert found == [{"1.2.3"}, {"unknown"}]


def metadata_is_missing(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_a_child_of_a_fork_counts_from_its_own_start(
    monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    monkeypatch.setattr(collector, "time", FakeTime(100.0))
    install(list, registry=registry)
    monkeypatch.setattr(collector, "time", FakeTime(200.0))
    assert Page(registry).values("start_time_seconds") == [100.0]

    child = Process()
    monkeypatch.setattr(collector, "current", lambda: child)

    assert Page(registry).values("start_time_seconds") == [200.0]


class FakeTime:
    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now
