from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)

from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import (
    ACK,
    BatchFailed,
    DeadLettered,
    Reject,
    RetryLater,
)
from django_gomq.bus.errors import NoConsumerError, QueueFullError
from django_gomq.bus.hooks import Attempt
from django_gomq.bus.message import MAX_HEADERS, Message, validate
from django_gomq.bus.retry import Retry
from django_gomq.bus.wire import wire_headers
from django_gomq.observability.tracing import TracingHook

from .conftest import MakeBroker
from .live import do_nothing, publish, wait_quiet, wait_until
from .spans import Traces, attributes, ids, is_sampled, linked_ids, parent_ids

AT_ONCE = Retry(attempts=2, min_delay=0.0)


@pytest.fixture
def traces(make_broker: MakeBroker) -> Traces:
    return Traces(make_broker)


@pytest.fixture
def unsampled(make_broker: MakeBroker) -> Traces:
    return Traces(make_broker, ALWAYS_OFF)


def fail(message: object) -> None:
    raise ValueError("S3CRET")


def test_one_trace_leads_from_the_request_to_the_handler(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("record.saved", do_nothing, name="audit")
    with traces.tracer.start_as_current_span("GET /"):
        publish(broker, "record.saved")

    process = traces.one("process record.saved")

    send = traces.one("send record.saved")
    assert parent_ids(send) == ids(traces.one("GET /"))
    assert parent_ids(process) == ids(send)
    assert linked_ids(process) == [ids(send)]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)


def test_with_links_a_handler_has_a_trace_of_its_own(traces: Traces) -> None:
    broker = traces.broker("link")
    broker.consume("record.saved", do_nothing, name="audit")
    with traces.tracer.start_as_current_span("GET /"):
        publish(broker, "record.saved")

    process = traces.one("process record.saved")

    send = traces.one("send record.saved")
    assert process.parent is None
    assert ids(process)[0] != ids(send)[0]
    assert linked_ids(process) == [ids(send)]


def test_another_way_to_hang_together_is_refused() -> None:
    with pytest.raises(ValueError, match="'child', not 'parent' or 'link'"):
        TracingHook(consumer="child")  # type: ignore[arg-type]


def test_spans_say_what_they_are_about(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("record.saved", do_nothing, name="audit")
    message: Message[Any] = Message(type="record.saved", body=b"[1,2]")
    with traces.tracer.start_as_current_span("GET /"):
        broker.publish(message)

    process = attributes(traces.one("process record.saved"))

    common = {
        "messaging.system": "django_gomq",
        "messaging.destination.name": "record.saved",
        "messaging.message.id": message.id,
        "messaging.message.body.size": 5,
        "gomq.broker": "default",
        "gomq.backend": "memory",
    }
    assert attributes(traces.one("send record.saved")) == {
        **common,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "sentry.op": "queue.publish",
    }
    waited = process.pop("gomq.wait_seconds")
    assert 0 <= waited < 10
    assert process.pop("messaging.message.receive.latency") == waited * 1000
    assert process == {
        **common,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "audit",
        "gomq.consumer": "audit",
        "messaging.message.retry.count": 0,
        "sentry.op": "queue.process",
        "gomq.attempt": 1,
        "gomq.outcome": "success",
    }


def test_the_context_travels_in_the_message(traces: Traces) -> None:
    seen: list[dict[str, str]] = []
    broker = traces.broker()
    broker.consume("a", lambda message: seen.append(message.headers), name="reads")
    with traces.tracer.start_as_current_span("GET /"):
        publish(broker, "a", headers={"tenant": "7"})
    wait_until(lambda: seen)

    trace_id, span_id = ids(traces.one("send a"))
    [headers] = seen
    assert headers.keys() == {"tenant", "traceparent"}
    assert headers["traceparent"].startswith(f"00-{trace_id:032x}-{span_id:016x}-")
    assert is_sampled(headers)


def test_a_refused_message_is_an_error_of_the_send(traces: Traces) -> None:
    broker = traces.broker(capacity=1)
    broker.consume("a", do_nothing, name="full", capacity=1, overflow="backpressure")
    broker.pause("full")
    publish(broker, "a", 2)
    with (
        traces.tracer.start_as_current_span("GET /"),
        pytest.raises(QueueFullError),
    ):
        broker.publish(Message(type="a"))

    send = traces.one("send a")

    assert send.status.status_code is StatusCode.ERROR
    assert attributes(send)["error.type"] == "queue_full"
    assert attributes(send)["gomq.outcome"] == "refused"


def test_a_message_that_nobody_consumes_is_no_error(traces: Traces) -> None:
    broker = traces.broker()
    with (
        traces.tracer.start_as_current_span("GET /", record_exception=False),
        pytest.raises(NoConsumerError),
    ):
        broker.publish(Message(type="a"))

    send = traces.one("send a")

    assert send.status.status_code is StatusCode.UNSET
    assert attributes(send)["gomq.outcome"] == "unconsumed"
    assert "error.type" not in attributes(send)


def test_a_span_that_does_not_record_passes_its_ids_on(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    message: Message[Any] = Message(type="a")
    with trace.use_span(NonRecordingSpan(remote)):
        broker.publish(message)

    process = traces.one("process a")

    assert traces.named("send a") == []
    assert message.headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert parent_ids(process) == (0xABC, 0xDEF)


def test_outside_of_any_span_a_message_carries_nothing(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    message: Message[Any] = Message(type="a")
    token = otel_context.attach(baggage.set_baggage("tenant", "seven"))
    broker.publish(message)
    otel_context.detach(token)

    process = traces.one("process a")

    assert traces.named("send a") == []
    assert message.headers == {}
    assert process.parent is None
    assert process.links == ()


def test_what_waited_for_its_commit_belongs_to_the_moment_of_emit(
    traces: Traces,
) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    with traces.tracer.start_as_current_span("inner"):
        parents = broker.hooks.capture_contexts()
    with traces.tracer.start_as_current_span("commit"):
        broker.hand_over_many([Message(type="a")], None, [parents])

    assert parent_ids(traces.one("send a")) == ids(traces.one("inner"))
    assert parent_ids(traces.one("process a")) == ids(traces.one("send a"))


def test_every_attempt_has_a_span(traces: Traces) -> None:
    broker = traces.broker()

    def fail_once(message: Message[Any]) -> None:
        if message.attempt == 1:
            raise ValueError

    broker.consume("a", fail_once, name="audit", retry=AT_ONCE)
    with traces.tracer.start_as_current_span("GET /"):
        publish(broker, "a")
    wait_until(lambda: len(traces.named("process a")) == 2)

    first, second = traces.named("process a")

    assert parent_ids(first) == parent_ids(second) == ids(traces.one("send a"))
    assert [attributes(span)["gomq.attempt"] for span in (first, second)] == [1, 2]
    assert attributes(first)["gomq.outcome"] == "error"
    assert attributes(first)["error.type"] == "ValueError"
    assert first.status.status_code is StatusCode.ERROR
    assert attributes(second)["gomq.outcome"] == "success"
    assert second.status.status_code is StatusCode.UNSET


def reject(message: object) -> None:
    raise Reject("never")


def postpone(message: object) -> None:
    raise RetryLater(60.0)


@pytest.mark.parametrize(
    ("handler", "outcome", "status"),
    [
        (fail, "error", StatusCode.ERROR),
        (reject, "rejected", StatusCode.ERROR),
        (postpone, "retry_later", StatusCode.UNSET),
    ],
)
def test_a_span_says_what_came_of_the_attempt(
    handler: Callable[[object], None],
    outcome: str,
    status: StatusCode,
    traces: Traces,
) -> None:
    broker = traces.broker()
    broker.consume("a", handler, name="audit")
    publish(broker, "a")

    process = traces.one("process a")

    assert attributes(process)["gomq.outcome"] == outcome
    assert process.status.status_code is status
    assert ("error.type" in attributes(process)) is (status is StatusCode.ERROR)


async def hang(message: object) -> None:
    await asyncio.Event().wait()


def test_a_cancelled_async_handler_is_an_error_of_its_span(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", hang, name="hangs", timeout=0.01)
    publish(broker, "a")

    process = traces.one("process a")

    assert attributes(process)["gomq.outcome"] == "timeout"
    assert attributes(process)["error.type"] == "HandlerTimeoutError"


def test_a_batch_has_one_span_that_links_to_all_of_its_messages(
    traces: Traces,
) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit", batch=3, linger=60.0)
    for number in range(2):
        with traces.tracer.start_as_current_span(f"GET /{number}"):
            publish(broker, "a")
    publish(broker, "a")

    process = traces.one("process a")

    assert process.parent is None
    assert linked_ids(process) == [ids(send) for send in traces.named("send a")]
    assert attributes(process)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(process)


def test_a_batch_of_several_types_is_named_for_its_consumer(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume(["a", "b"], do_nothing, name="audit", batch=2, linger=60.0)
    publish(broker, "a")
    publish(broker, "b")

    process = traces.one("process audit")

    assert "messaging.destination.name" not in attributes(process)


def test_a_batch_with_a_failed_member_is_an_error(traces: Traces) -> None:
    def blame_last(messages: Sequence[Message[Any]]) -> None:
        raise BatchFailed({messages[-1].id: ValueError()})

    broker = traces.broker()
    broker.consume("a", blame_last, name="audit", batch=2, linger=60.0)
    publish(broker, "a", 2)

    process = traces.one("process a")

    assert process.status.status_code is StatusCode.ERROR


def test_one_failure_among_many_outcomes_makes_an_error(traces: Traces) -> None:
    hook = TracingHook(tracer_provider=traces.provider)
    options = {"batch": 3}
    audit = make_consumer(["a"], do_nothing, name="audit", options=options)
    messages: list[Message[Any]] = [Message(type="a") for _ in range(3)]
    watch = hook.attempting(Attempt("default", "memory", audit, messages, 1, 0.0))

    watch.begin()
    watch.end([ACK, DeadLettered(ValueError()), ACK])

    assert attributes(traces.one("process a"))["gomq.outcome"] == "error"


def test_a_handler_works_inside_its_span(traces: Traces) -> None:
    broker = traces.broker()

    def query(message: object) -> None:
        traces.tracer.start_span("SELECT").end()

    broker.consume("a", query, name="queries")
    publish(broker, "a")

    assert parent_ids(traces.one("SELECT")) == ids(traces.one("process a"))


def test_an_async_handler_works_inside_its_span(traces: Traces) -> None:
    broker = traces.broker()

    async def query(message: Message[Any]) -> None:
        traces.tracer.start_span(f"SELECT {message.key}").end()

    broker.consume("a", query, name="queries", concurrency=4)
    for key in "xyz":
        publish(broker, "a", key=key)
    wait_until(lambda: len(traces.named("process a")) == 3)

    processes = {
        attributes(span)["messaging.message.id"]: ids(span)
        for span in traces.named("process a")
    }
    assert {parent_ids(traces.one(f"SELECT {key}")) for key in "xyz"} == set(
        processes.values()
    )


def test_a_failed_handler_leaves_no_span_behind(traces: Traces) -> None:
    broker = traces.broker()
    seen: list[trace.Span] = []
    broker.consume("a", fail, name="fails")
    broker.consume("b", lambda _: seen.append(trace.get_current_span()), name="next")
    publish(broker, "a", 20)
    publish(broker, "b", 20)
    wait_quiet(broker)

    wait_until(lambda: len(traces.named("process b")) == 20)
    assert {span.parent for span in traces.named("process b")} == {None}
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_baggage_reaches_the_handler(traces: Traces) -> None:
    broker = traces.broker()
    seen: list[object] = []
    broker.consume("a", lambda _: seen.append(baggage.get_baggage("tenant")), name="b")
    token = otel_context.attach(baggage.set_baggage("tenant", "seven"))
    with traces.tracer.start_as_current_span("GET /"):
        publish(broker, "a")
    otel_context.detach(token)
    wait_until(lambda: seen)

    assert seen == ["seven"]


@pytest.mark.parametrize(
    ("own", "baggage_bytes", "fits"),
    [(MAX_HEADERS - 1, 1, True), (MAX_HEADERS, 1, False), (0, 4090, True)],
)
def test_ids_that_find_no_room_are_left_out(
    own: int,
    baggage_bytes: int,
    fits: bool,
    traces: Traces,
) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    headers = {f"h{number}": "x" for number in range(own)}
    message: Message[Any] = Message(type="a", headers=headers)
    token = otel_context.attach(baggage.set_baggage("big", "x" * baggage_bytes))
    with traces.tracer.start_as_current_span("GET /"):
        broker.publish(message)
    otel_context.detach(token)

    validate(message, max_body_bytes=100)
    assert ("traceparent" in message.headers) is fits
    assert "baggage" not in message.headers
    assert (traces.one("process a").parent is not None) is fits


@pytest.mark.parametrize("value", ["", "00-nonsense", "00-" + "0" * 32 + "-0-01"])
def test_ids_that_make_no_sense_are_ignored(value: str, traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    broker.consume("a", do_nothing, name="batches", batch=1)
    publish(broker, "a", headers={"traceparent": value})
    wait_until(lambda: len(traces.named("process a")) == 2)

    for process in traces.named("process a"):
        assert process.parent is None
        assert process.links == ()


def test_a_kept_trace_is_shown_beside_the_histogram(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    publish(broker, "a")
    wait_quiet(broker)

    [exemplar] = broker.stats().consumers["audit"].duration.exemplars.values()

    assert exemplar.trace_id == f"{ids(traces.one('process a'))[0]:032x}"


def test_a_trace_that_is_not_kept_is_shown_nowhere(unsampled: Traces) -> None:
    broker = unsampled.broker()
    broker.consume("a", do_nothing, name="audit")
    message: Message[Any] = Message(type="a")
    with unsampled.tracer.start_as_current_span("GET /"):
        broker.publish(message)
    wait_quiet(broker)

    assert broker.stats().consumers["audit"].duration.exemplars == {}
    assert not is_sampled(wire_headers(message))


def test_no_span_has_the_payload(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", fail, name="fails")
    with traces.tracer.start_as_current_span("GET /"):
        publish(broker, "a", body=b'"S3CRET"', key="S3CRET", headers={"h": "S3CRET"})

    spans = [traces.one("process a"), traces.one("send a")]

    assert "S3CRET" not in "".join(span.to_json() for span in spans)


def test_the_hook_never_fails_a_publish(traces: Traces) -> None:
    broker = traces.broker()
    broker.consume("a", do_nothing, name="audit")
    parents = [(Context({"current-span": object()}),)]

    answers = broker.hand_over_many([Message(type="a")], None, parents)

    assert answers == [None]
    assert broker.hooks.errors == {"TracingHook": 0}
