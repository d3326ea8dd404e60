"""A request is one SERVER span, child of the caller's."""

from __future__ import annotations

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from clinic import telemetry

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("clinic"))
    return exporter


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


def test_a_request_opens_a_server_span(spans: InMemorySpanExporter) -> None:
    telemetry.TraceRequests(answer)(RequestFactory().get("/records/5/"))

    (span,) = spans.get_finished_spans()
    assert span.kind is SpanKind.SERVER
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 204
    assert span.attributes["url.path"] == "/records/5/"


def test_a_request_goes_on_with_the_trace_of_its_caller(
    spans: InMemorySpanExporter,
) -> None:
    request = RequestFactory().get("/", headers={"traceparent": CALLER})

    telemetry.TraceRequests(answer)(request)

    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{span.parent.span_id:016x}" == CALLER.split("-")[2]


def test_an_unknown_destination_of_traces_says_what_to_choose() -> None:
    with pytest.raises(ValueError, match="none, console or otlp"):
        telemetry.configure("jaeger")
