"""What a send span says of a hand-over that raised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from django_gomq.bus.errors import ConfigurationError, EncodeError, QueueFullError
from django_gomq.bus.message import Message
from django_gomq.observability.tracing import TracingHook


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def hand_over(provider: TracerProvider, error: Exception | None) -> None:
    """Tell the hook of one message, inside a request that is recorded."""
    hook, message = TracingHook(tracer_provider=provider), Message[Any]("a.b")
    with provider.get_tracer("of the project").start_as_current_span("GET /"):
        end = hook.publishing("default", "memory", message, None)
        assert end is not None
        end(error)


def send_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    [span] = [one for one in exporter.get_finished_spans() if one.name == "send a.b"]
    return span


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (QueueFullError("full"), "queue_full"),
        (ConfigurationError("wrong"), "configuration"),
        (EncodeError("wrong"), "encode"),
        (ConnectionResetError("S3CRET"), "ConnectionResetError"),
    ],
    ids=str,
)
def test_whatever_the_hand_over_raised_is_an_error_of_the_send(
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    error: Exception,
    error_type: str,
) -> None:
    hand_over(provider, error)

    span = send_span(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == error_type
    assert dict(span.attributes or {})["gomq.outcome"] == "refused"


def test_the_text_of_a_foreign_error_is_not_told(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    hand_over(provider, ConnectionResetError("S3CRET"))

    assert "S3CRET" not in send_span(exporter).to_json()


def test_a_hand_over_that_went_well_is_no_error(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    hand_over(provider, None)

    span = send_span(exporter)
    assert span.status.status_code is StatusCode.UNSET
    assert "gomq.outcome" not in (span.attributes or {})
