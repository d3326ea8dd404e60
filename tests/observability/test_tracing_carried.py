"""A trace that nobody keeps goes from the emit to the handler without being written."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import PROPAGATED
from django_gomq.bus.message import Message
from django_gomq.observability.tracing.headers import CarriedHeaders

from .conftest import MakeBroker
from .live import wait_quiet
from .spans import Traces, ids, parent_ids

Seen = list[tuple[int, int]]


@pytest.fixture
def traces(make_broker: MakeBroker) -> Traces:
    """As most sites have it: few requests are kept, and what they lead to with them."""
    return Traces(make_broker, ParentBased(ALWAYS_OFF))


def note_ids(broker: Broker, name: str = "audit") -> Seen:
    """Consume; return the trace and span that each handler finds current."""
    seen: Seen = []

    def note(message: object) -> None:
        found = trace.get_current_span().get_span_context()
        seen.append((found.trace_id, found.span_id))

    broker.consume("a", note, name=name)
    return seen


def publish_in_request(traces: Traces, broker: Broker, message: Message[Any]) -> Any:
    """Publish inside a span that is not kept; return its ids."""
    with traces.tracer.start_as_current_span("GET /") as span:
        broker.publish(message)
    found = span.get_span_context()
    return found.trace_id, found.span_id


def test_a_handler_finds_the_ids_of_the_request_and_no_span_is_made(
    traces: Traces,
) -> None:
    broker = traces.broker()
    seen, others = note_ids(broker), note_ids(broker, "mails")

    sent = [publish_in_request(traces, broker, Message("a")) for _ in range(3)]
    wait_quiet(broker)

    assert seen == others == sent
    assert len(set(sent)) == 3
    assert traces.named("send a") == traces.named("process a") == []


def test_a_message_that_is_published_twice_carries_the_later_trace(
    traces: Traces,
) -> None:
    broker = traces.broker()
    seen = note_ids(broker)
    message: Message[Any] = Message("a", headers={"tenant": "seven"})

    sent = []
    for _ in range(3):
        sent.append(publish_in_request(traces, broker, message))
        wait_quiet(broker)

    assert seen == sent
    carried: Any = message.headers
    assert type(carried) is CarriedHeaders
    assert carried.others == {"tenant": "seven"}, "what it carried before stays on it"


def test_headers_that_are_carried_read_as_any_others(traces: Traces) -> None:
    broker = traces.broker()
    note_ids(broker)
    message: Message[Any] = Message("a", headers={"tenant": "seven"})
    trace_id, span_id = publish_in_request(traces, broker, message)

    expected = {
        "tenant": "seven",
        "traceparent": message.headers["traceparent"],
    }
    assert expected["traceparent"].startswith(f"00-{trace_id:032x}-{span_id:016x}-0")
    assert dict(message.headers) == expected
    assert dict(message.headers.items()) == expected
    assert message.headers.get("tenant") == "seven"
    assert len(message.headers) == 2


def test_a_span_that_somebody_else_keeps_has_its_attempt_kept(traces: Traces) -> None:
    broker = traces.broker()
    note_ids(broker)
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(remote)):
        broker.publish(Message("a"))

    assert parent_ids(traces.one("process a")) == (0xABC, 0xDEF)


def test_what_else_is_in_the_context_is_written_as_its_propagator_does(
    traces: Traces,
) -> None:
    broker = traces.broker()
    seen: list[object] = []
    broker.consume("a", lambda _: seen.append(baggage.get_baggage("tenant")), name="b")
    message: Message[Any] = Message("a")
    token = otel_context.attach(baggage.set_baggage("tenant", "seven"))
    publish_in_request(traces, broker, message)
    otel_context.detach(token)
    wait_quiet(broker)

    assert seen == ["seven"]
    assert set(message.headers) == {"baggage", "traceparent"}


def test_what_waited_for_its_commit_carries_the_trace_of_its_emit(
    traces: Traces,
) -> None:
    broker = traces.broker()
    seen = note_ids(broker)
    messages = [Message[Any]("a") for _ in range(3)]
    with traces.tracer.start_as_current_span("GET /") as span:
        parents = broker.hooks.prepare(messages)
    with traces.tracer.start_as_current_span("commit"):
        broker.hand_over_many(messages, None, [parents] * 3)
    wait_quiet(broker)

    found = span.get_span_context()
    assert seen == [(found.trace_id, found.span_id)] * 3
    assert parents is PROPAGATED


def test_a_commit_may_hold_messages_that_are_carried_and_such_that_are_kept(
    traces: Traces,
) -> None:
    broker, kept = traces.broker(), TracerProvider(shutdown_on_exit=False)
    seen = note_ids(broker)
    carried, watched = Message[Any]("a"), Message[Any]("a")
    with traces.tracer.start_as_current_span("GET /") as span:
        parents = [broker.hooks.prepare([carried])]
    with kept.get_tracer("other").start_as_current_span("task") as task:
        parents.append(broker.hooks.prepare([watched]))
    broker.hand_over_many([carried, watched], None, parents)
    wait_quiet(broker)

    kept.shutdown()
    assert seen[0][0] == span.get_span_context().trace_id
    assert traces.one("send a").parent == task.get_span_context()
    assert parent_ids(traces.one("process a")) == ids(traces.one("send a"))


def test_a_batch_that_is_published_at_once_carries_its_trace(traces: Traces) -> None:
    broker = traces.broker()
    seen = note_ids(broker)

    with traces.tracer.start_as_current_span("GET /") as span:
        answers = broker.publish_many([Message("a") for _ in range(3)])
    wait_quiet(broker)

    assert answers == [None] * 3
    assert {trace_id for trace_id, _ in seen} == {span.get_span_context().trace_id}
    assert len(seen) == 3


def test_outside_of_any_context_nothing_is_carried(traces: Traces) -> None:
    broker = traces.broker()
    note_ids(broker)
    message: Message[Any] = Message("a")

    contextvars.Context().run(broker.publish, message)

    assert message.headers == {}


def test_a_handler_that_changes_its_trace_changes_that_of_no_other(
    traces: Traces,
) -> None:
    broker, seen = traces.broker(), list[int]()

    def attach_another(message: object) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        other = SpanContext(0xABC, 0xDEF, is_remote=False)
        otel_context.attach(trace.set_span_in_context(NonRecordingSpan(other)))

    broker.consume("a", attach_another, name="changes", concurrency=1)

    sent = [publish_in_request(traces, broker, Message("a")) for _ in range(5)]
    contextvars.Context().run(broker.publish, Message("a"))
    wait_quiet(broker)

    assert seen[:5] == [trace_id for trace_id, _ in sent]
    assert seen[5] not in (0xABC, *seen[:5])
