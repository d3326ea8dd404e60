from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import ACK
from django_gomq.bus.hooks import Attempt
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.observability.logs import ContextFilter, ContextHook

from .conftest import MakeBroker
from .live import do_nothing, publish, wait_quiet

logger = logging.getLogger("of.the.project")

FIELDS = (
    "trace_id",
    "span_id",
    "gomq_broker",
    "gomq_consumer",
    "gomq_event",
    "gomq_message_id",
    "gomq_attempt",
)
OUTSIDE = ("", "", "", "", "", "", 0)


class Records(logging.Handler):
    """Keeps what a log handler with the filter would write."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[tuple[object, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(tuple(vars(record)[name] for name in FIELDS))


@pytest.fixture
def _nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContextFilter, "in_use", False)


@pytest.fixture
def records(_nobody_asked: None) -> Iterator[list[tuple[object, ...]]]:
    handler = Records()
    handler.addFilter(ContextFilter())
    logger.addHandler(handler)
    yield handler.fields
    logger.removeHandler(handler)


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    return make_broker(hooks=[ContextHook()])


def test_outside_of_a_handler_the_fields_are_empty(
    records: list[tuple[object, ...]],
) -> None:
    logger.warning("hello")

    assert records == [OUTSIDE]


def test_a_line_of_a_handler_names_its_message(
    broker: Broker, records: list[tuple[object, ...]]
) -> None:
    def log_and_fail_once(message: Message[Any]) -> None:
        logger.warning("hello")
        if message.attempt == 1:
            raise ValueError

    retry = Retry(attempts=2, min_delay=0.0)
    broker.consume("a", log_and_fail_once, name="audit", retry=retry)
    message: Message[Any] = Message(type="a")
    broker.publish(message)
    wait_quiet(broker)

    assert records == [
        ("", "", "default", "audit", "a", message.id, 1),
        ("", "", "default", "audit", "a", message.id, 2),
    ]


def test_after_an_attempt_its_message_is_forgotten(
    records: list[tuple[object, ...]],
) -> None:
    audit = make_consumer(["a"], do_nothing, name="audit", options={})
    attempt = Attempt("default", "memory", audit, [Message(type="a")], 1, 0.0)
    watch = ContextHook().attempting(attempt)

    watch.begin()
    watch.end([ACK])
    logger.warning("hello")

    assert records == [OUTSIDE]


def test_a_line_of_an_async_handler_names_its_message(
    broker: Broker, records: list[tuple[object, ...]]
) -> None:
    async def log(message: object) -> None:
        logger.warning("hello")

    broker.consume("a", log, name="audit")
    message: Message[Any] = Message(type="a")
    broker.publish(message)
    wait_quiet(broker)

    assert records == [("", "", "default", "audit", "a", message.id, 1)]


def test_a_line_of_a_batch_names_what_its_messages_share(
    broker: Broker, records: list[tuple[object, ...]]
) -> None:
    def log(messages: Sequence[object]) -> None:
        logger.warning("hello")

    broker.consume("a", log, name="one_type", batch=2, linger=60.0)
    broker.consume(["b", "c"], log, name="two_types", batch=2, linger=60.0)
    publish(broker, "a", 2)
    wait_quiet(broker)
    publish(broker, "b")
    publish(broker, "c")
    wait_quiet(broker)

    assert records == [
        ("", "", "default", "one_type", "a", "", 1),
        ("", "", "default", "two_types", "", "", 1),
    ]


def test_a_line_inside_a_span_has_its_ids(records: list[tuple[object, ...]]) -> None:
    with trace.use_span(NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False))):
        logger.warning("hello")

    assert records == [(f"{0xABC:032x}", f"{0xDEF:016x}", "", "", "", "", 0)]


def test_where_nobody_imported_opentelemetry_there_is_no_trace(
    records: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")

    logger.warning("hello")

    assert records == [OUTSIDE]


def test_what_a_record_has_already_stays(records: list[tuple[object, ...]]) -> None:
    logger.warning("hello", extra={"trace_id": "mine", "gomq_event": "a"})

    assert records == [("mine", "", "", "", "a", "", 0)]


@pytest.mark.usefixtures("_nobody_asked")
def test_the_bus_remembers_only_for_a_filter_that_somebody_made() -> None:
    assert not ContextFilter.in_use

    ContextFilter()

    assert ContextFilter.in_use
