"""A trace that nobody keeps goes from the emit to the handler without being written."""

from __future__ import annotations

import contextvars
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import PROPAGATED
from django_gomq.bus.message import MAX_HEADERS, Message, validate
from django_gomq.bus.wire import wire_headers
from django_gomq.observability.logs.hook import about

from .conftest import MakeBroker
from .live import wait_quiet, wait_until
from .spans import Traces, ids, is_sampled, linked_ids, parent_ids

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
    assert message.headers == {"tenant": "seven"}


def named_ids(headers: dict[str, str]) -> tuple[int, int]:
    """Return the trace and span that headers name."""
    assert not is_sampled(headers)
    _, trace_id, span_id, _ = headers["traceparent"].split("-")
    return int(trace_id, 16), int(span_id, 16)


def test_a_handler_reads_in_the_headers_what_it_carries(traces: Traces) -> None:
    broker, seen = traces.broker(), list[Any]()
    broker.consume("a", lambda message: seen.append(message.headers), name="reads")
    message: Message[Any] = Message("a", headers={"tenant": "seven"})

    sent = publish_in_request(traces, broker, message)
    wait_quiet(broker)

    [headers] = seen
    assert named_ids(headers) == sent
    assert headers.keys() == {"tenant", "traceparent"}
    assert json.loads(json.dumps(headers)) == headers


def test_what_a_handler_writes_into_its_headers_reaches_nobody(traces: Traces) -> None:
    broker, seen = traces.broker(), list[Any]()

    def write(message: Message[Any]) -> None:
        message.headers["traceparent"] = message.headers["mine"] = "x"
        seen.append(message.headers)

    broker.consume("a", write, name="writes")
    broker.consume("a", write, name="too")
    message: Message[Any] = Message("a", headers={"tenant": "seven"})
    sent = publish_in_request(traces, broker, message)
    wait_quiet(broker)

    assert len({id(headers) for headers in seen}) == 2
    assert message.headers == {"tenant": "seven"}
    assert named_ids(wire_headers(message)) == sent


def publish_twice(traces: Traces, broker: Broker, message: Message[Any]) -> None:
    with traces.tracer.start_as_current_span("GET /"):
        broker.publish(message)
        broker.publish(message)


def publish_many(traces: Traces, broker: Broker, message: Message[Any]) -> None:
    with traces.tracer.start_as_current_span("GET /"):
        broker.publish_many([message])


def publish_at_commit(traces: Traces, broker: Broker, message: Message[Any]) -> None:
    with traces.tracer.start_as_current_span("GET /"):
        parents = broker.hooks.prepare([message])
    broker.hand_over_many([message], None, [parents])


def publish_watched(traces: Traces, broker: Broker, message: Message[Any]) -> None:
    with traces.tracer.start_as_current_span("GET /"):
        parents = broker.hooks.capture_contexts()
    broker.hand_over_many([message], None, [parents])


WAYS = [publish_in_request, publish_twice, publish_many]
WAYS += [publish_at_commit, publish_watched]


@pytest.mark.parametrize("headers", [{}, {"tenant": "seven"}], ids=["none", "some"])
@pytest.mark.parametrize("batch", [None, 2], ids=["single", "batch"])
@pytest.mark.parametrize("way", WAYS)
def test_headers_are_a_dict_however_it_was_published(
    way: Callable[[Traces, Broker, Message[Any]], object],
    batch: int | None,
    headers: dict[str, str],
    traces: Traces,
) -> None:
    broker, seen = traces.broker(), list[Message[Any]]()
    consume: Any = seen.append if batch is None else seen.extend
    options: Any = {} if batch is None else {"batch": batch, "linger": 0.001}
    broker.consume("a", consume, name="reads", **options)
    message: Message[Any] = Message("a", headers=dict(headers))

    way(traces, broker, message)
    wait_quiet(broker)

    [text] = {json.dumps(found.headers) for found in seen}
    assert json.loads(text) == wire_headers(message)
    assert wire_headers(message).keys() == {*headers, "traceparent"}
    assert json.loads(json.dumps(message.headers)) == headers
    validate(message, max_body_bytes=100)


@pytest.mark.parametrize(
    ("looks", "changes"), [(False, False), (True, False), (True, True)]
)
def test_a_handler_may_pass_on_what_it_received(
    looks: bool, changes: bool, traces: Traces
) -> None:
    broker, far = traces.broker(), traces.broker()
    seen: list[Message[Any]] = []

    def pass_on(message: Message[Any]) -> None:
        if looks:
            json.dumps(message.headers)
        if changes:
            message.headers["hop"] = "1"
        far.publish(message)

    far.consume("a", seen.append, name="far")
    broker.consume("a", pass_on, name="near")
    sent = publish_in_request(traces, broker, Message("a", headers={"tenant": "7"}))
    wait_until(lambda: seen)

    [message] = seen
    assert named_ids(json.loads(json.dumps(message.headers))) == sent
    assert message.headers["tenant"] == "7"
    assert ("hop" in message.headers) is changes


def test_a_message_that_is_kept_the_second_time_forgets_what_it_carried(
    traces: Traces,
) -> None:
    broker, kept = traces.broker(), TracerProvider(shutdown_on_exit=False)
    note_ids(broker)
    message: Message[Any] = Message("a")
    publish_in_request(traces, broker, message)
    wait_quiet(broker)

    with kept.get_tracer("other").start_as_current_span("task"):
        broker.publish(message)
    process = traces.one("process a")

    kept.shutdown()
    assert message.trace_context is None
    assert parent_ids(process) == ids(traces.one("send a"))


@pytest.mark.parametrize("batch", [None, 1], ids=["single", "batch"])
def test_a_watched_attempt_finds_the_trace_that_is_carried(
    batch: int | None, make_broker: MakeBroker
) -> None:
    sender = Traces(make_broker, ParentBased(ALWAYS_OFF))
    keeper = Traces(make_broker)  # an async handler's spans, say, are always made
    broker = keeper.broker("link")
    broker.consume("a", lambda _: None, name="audit", batch=batch)

    sent = publish_in_request(sender, broker, Message("a"))

    assert linked_ids(keeper.one("process a")) == [sent]


def test_where_no_header_has_room_the_trace_is_still_carried(traces: Traces) -> None:
    broker = traces.broker()
    seen = note_ids(broker)
    headers = {f"h{number}": "x" for number in range(MAX_HEADERS)}
    message: Message[Any] = Message("a", headers=headers)

    sent = publish_in_request(traces, broker, message)
    wait_quiet(broker)

    assert seen == [sent]
    assert wire_headers(message) == headers


def test_another_process_is_told_by_the_wire_alone(traces: Traces) -> None:
    broker = traces.broker()
    note_ids(broker)
    message: Message[Any] = Message("a", headers={"tenant": "seven"})
    publish_in_request(traces, broker, message)

    other = pickle.loads(pickle.dumps(message))

    assert (other.id, other.headers) == (message.id, {"tenant": "seven"})
    assert other.trace_context is None


def test_a_log_line_names_the_trace_that_is_carried(traces: Traces) -> None:
    broker = traces.broker()
    note_ids(broker)
    message: Message[Any] = Message("a")

    trace_id, _ = publish_in_request(traces, broker, message)

    assert about(message, 1)["trace_id"] == f"{trace_id:032x}"


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

    assert wire_headers(message) == {}


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
