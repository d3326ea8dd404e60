"""OpenTelemetry for the clinic: the SDK and a span per request."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
)

_tracer = trace.get_tracer("clinic")


def configure(traces: str) -> None:
    """Send spans to where `traces` says; call it once in each serving process."""
    provider = TracerProvider(resource=Resource.create({"service.name": "clinic"}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(traces)))
    trace.set_tracer_provider(provider)


def _exporter(traces: str) -> SpanExporter:
    if traces == "console":
        return ConsoleSpanExporter(formatter=_one_line)
    if traces == "otlp":
        return OTLPSpanExporter()
    message = f"CLINIC_TRACES={traces!r}: say none, console or otlp"
    raise ValueError(message)


def _one_line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}{os.linesep}"


class TraceRequests:
    """Open the SERVER span that the spans of emits and handlers hang from."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Go on with the caller's trace, or begin one."""
        with _tracer.start_as_current_span(
            request.method or "HTTP",
            context=propagate.extract(request.headers),
            kind=trace.SpanKind.SERVER,
        ) as span:
            response = self._get_response(request)
            _describe(span, request, response)
        return response


def _describe(span: trace.Span, request: HttpRequest, response: HttpResponse) -> None:
    route = request.resolver_match.route if request.resolver_match else ""
    # The route, not the path: a span name must not have as many values as records.
    span.update_name(f"{request.method} /{route}")
    span.set_attribute("http.request.method", request.method or "")
    span.set_attribute("http.route", f"/{route}")
    span.set_attribute("url.path", request.path)
    span.set_attribute("http.response.status_code", response.status_code)
