"""What a project's logging does costs the line, and nothing of the bus."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import RetryLater
from django_gomq.bus.errors import QueueFullError
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.observability.logs import LogHook
from tests.bus.misbehaving_logs import (
    WHERE,
    Blocking,
    adding,
    making_records,
    raising,
)
from tests.bus.odd_errors import ODD, make_odd
from tests.bus.waiting import LONG, wait_until, wait_until_settled

from .conftest import MakeBroker

ERRORS = [
    OSError(28, "No space left on device"),
    AttributeError("request"),
    RecursionError(),
    SystemExit(1),
]


class Faulty(Hook):
    """Has a bug in everything that it hears of."""

    watches_publishing = True
    watches_attempts = True

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("_", "watches", "has_")):
            return super().__getattribute__(name)
        raise LookupError(name)


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gomq")


def busy(make_broker: MakeBroker, *hooks: Hook) -> Broker:
    """Return a broker that has something to say of every kind."""
    broker = make_broker(hooks=[*hooks, LogHook()], capacity=50, threads=4)
    attempts: list[int] = []

    def fail(message: Message[Any]) -> None:
        raise ValueError("no such row")

    def fail_batch(messages: Sequence[Message[Any]]) -> None:
        raise ValueError("no such rows")

    def postpone(message: Message[Any]) -> None:
        attempts.append(1)
        if len(attempts) < 5:
            raise RetryLater(0.0)

    async def fail_async(message: Message[Any]) -> None:
        raise ValueError("no such row")

    again = Retry(attempts=3, min_delay=0.0)
    broker.consume("a", fail, name="fails", retry=again)
    broker.consume("a", fail, name="tight", capacity=1, overflow="backpressure")
    broker.consume("a", fail_async, name="async", retry=again)
    broker.consume("a", fail_batch, name="batch", batch=5)
    broker.consume("a", postpone, name="postpones")
    broker.consume("b", lambda _: None, name="small", capacity=5)
    broker.consume(
        "b", lambda _: None, name="fresh", capacity=5, overflow="drop_oldest"
    )
    return broker


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("hooks", [[], [Faulty()]], ids=["sound", "faulty"])
def test_logging_that_raises_loses_no_message_and_no_thread(
    make_broker: MakeBroker, where: str, error: BaseException, hooks: list[Hook]
) -> None:
    broker = busy(make_broker, *hooks)

    with raising(where, error):
        for number in range(30):
            broker.publish(Message("a", b"%d" % number), timeout=LONG)
        broker.pause("small")
        broker.pause("fresh")
        for _ in range(30):
            broker.publish(Message("b"), timeout=LONG)
        wait_until(lambda: broker.stats().queues["b"].depth == 0)
        broker.resume("small")
        broker.resume("fresh")
        wait_until_settled(broker)
        consumers = broker.stats().consumers
        remainder = broker.close(timeout=LONG)

    assert remainder.is_clean
    for name in ("fails", "tight", "async", "batch"):
        assert (consumers[name].dead_lettered, consumers[name].dropped) == (30, {})
    assert consumers["postpones"].succeeded == 30
    for name in ("small", "fresh"):
        assert consumers[name].succeeded == 5
        assert sum(consumers[name].dropped.values()) == 25


@pytest.mark.parametrize("where", WHERE)
def test_logging_that_raises_does_not_come_out_of_a_publish(
    make_broker: MakeBroker, where: str
) -> None:
    broker = make_broker(hooks=[LogHook(), Faulty()], capacity=1)
    broker.consume("a", lambda _: None, name="c", capacity=1, overflow="backpressure")
    broker.pause("c")

    with raising(where, OSError(28, "No space left on device")):
        for _ in range(2):
            broker.publish(Message("a"), timeout=LONG)
        for _ in range(20):
            with pytest.raises(QueueFullError):
                broker.publish(Message("a"))
        assert broker.hooks.flush(LONG)

    assert broker.stats().queues["a"].refused == {"queue_full": 20}


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    handler = Blocking()
    with adding(handler):
        yield handler
        handler.go_on.set()


def test_logging_that_blocks_holds_up_neither_dispatcher_nor_timers(
    make_broker: MakeBroker, blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 0.01)
    handled, go_on = list[object](), Event()
    broker = make_broker(hooks=[LogHook()], threads=3)
    broker.consume("a", lambda _: handled.append("a"), name="quick")
    broker.consume("drop", lambda _: None, name="small", capacity=1)
    broker.consume("late", lambda _: go_on.wait(LONG), name="late", timeout=0.01)
    broker.pause("small")

    broker.publish(Message("late"))
    for _ in range(5):
        broker.publish(Message("drop"))
    assert blocking.entered.wait(LONG)
    for _ in range(20):
        broker.publish(Message("a"))
    broker.publish(Message("a", delay=0.02))

    wait_until(lambda: len(handled) == 21)
    go_on.set()
    broker.resume("small")
    wait_until_settled(broker)
    assert len(blocking.lines) == 1


def test_a_close_does_not_wait_for_logging_that_blocks(
    make_broker: MakeBroker, blocking: Blocking
) -> None:
    broker = make_broker(hooks=[LogHook()])
    broker.consume("drop", lambda _: None, name="small", capacity=1)
    broker.pause("small")
    for _ in range(5):
        broker.publish(Message("drop"))
    assert blocking.entered.wait(LONG)

    remainder = broker.close(timeout=0)

    assert remainder.dropped == {"drop": 1}
    assert remainder.seconds < LONG / 2
    assert len(blocking.lines) == 1
    blocking.go_on.set()
    wait_until(lambda: broker.hooks.flush(LONG))  # no other test gets its lines


def test_what_logging_that_blocks_leaves_out_is_counted(
    make_broker: MakeBroker, blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker(hooks=[LogHook()], capacity=1)
    broker.consume("a", lambda _: None, name="c", capacity=1, overflow="backpressure")
    broker.pause("c")
    housekeeping = broker.hooks.housekeeping
    assert housekeeping is not None
    monkeypatch.setattr(housekeeping, "_most", 10)
    for _ in range(2):
        broker.publish(Message("a"), timeout=LONG)

    broker.publish_many([Message("a")])
    assert blocking.entered.wait(LONG)
    broker.publish_many([Message("a")] * 30)

    assert housekeeping.lost == 20
    assert broker.stats().queues["a"].refused == {"queue_full": 31}


NAMES = [
    "trace_id",
    "gomq_event",
    "gomq_error",
    "gomq_consumer",
    "gomq_message_id",
    "gomq_attempt",
    "gomq_kind",
    "gomq_left",
    "gomq_hook",
]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["of the request", ""])
def test_a_record_factory_that_sets_our_names_loses_no_line(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    plain = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = plain(*args, **kwargs)
        setattr(record, name, value)
        return record

    def fail(message: object) -> None:
        raise ValueError("boom")

    broker = make_broker(hooks=[Faulty(), LogHook()])
    broker.consume("a", fail, name="c")
    broker.consume("b", fail, name="paused")
    broker.pause("paused")
    with making_records(make):
        broker.publish(Message("a", headers={"traceparent": TRACEPARENT}))
        broker.publish(Message("b"))
        wait_until(broker.dead_letters)
        broker.close(timeout=0)

    # That of a test before may still be said.
    lines = {
        record.name: vars(record)
        for record in caplog.records
        if record.name != "gomq.consumer" or "Consumer c " in record.getMessage()
    }
    assert lines.keys() >= {"gomq.hooks", "gomq.consumer", "gomq.bus"}
    letter = lines["gomq.consumer"]
    assert letter["gomq_event"] == "a"
    assert letter["gomq_trace_id"] == TRACEPARENT[3:35]
    if name == "trace_id":
        assert letter["trace_id"] == (value or TRACEPARENT[3:35])


def raise_in_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
    raise LookupError("no request")


class OddRecord(logging.LogRecord):
    """Refuses what it was not made with."""

    @property
    def exc_text(self) -> str | None:
        return None

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        if text:
            raise AttributeError


def make_nothing(*args: Any, **kwargs: Any) -> Any:
    """Return no record, as one that forgets its return does."""


@pytest.mark.parametrize("make", [raise_in_factory, OddRecord, make_nothing])
def test_a_record_factory_with_a_bug_loses_no_line(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture, make: Any
) -> None:
    def fail(message: object) -> None:
        raise ValueError("boom")

    broker = make_broker(hooks=[LogHook()])
    broker.consume("a", fail, name="c")
    with making_records(make):
        broker.publish(Message("a"))
        wait_until(broker.dead_letters)
        broker.close()

    # That of a test before may still be said.
    [letter] = [one for one in caplog.records if vars(one).get("gomq_consumer") == "c"]
    assert letter.name == "gomq.consumer"
    assert "ValueError: boom" in logging.Formatter().format(letter)


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_error_has_its_line(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    error = make_odd()[kind]

    def fail(message: object) -> None:
        raise error

    broker = make_broker(hooks=[LogHook()])
    broker.consume("a", fail, name="c")
    broker.publish(Message("a"))
    wait_until_settled(broker)
    broker.close()

    [text] = [
        logging.Formatter().format(record)
        for record in caplog.records
        if record.levelno == logging.ERROR and vars(record).get("gomq_consumer") == "c"
    ]
    assert "gave up on a in attempt 1" in text
    assert "in fail" in text
    assert len(text) < 6_000
    assert all(line.isprintable() for line in text.split("\n"))
