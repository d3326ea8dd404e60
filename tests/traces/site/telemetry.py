"""OpenTelemetry as a project sets it up: the SDK, an exporter, a span per request."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

tracer = trace.get_tracer("site")


def configure() -> None:
    """Send spans to where OpenTelemetry's own variables say; once in each worker."""
    is_grpc = os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"
    exporter: SpanExporter = GrpcExporter(insecure=True) if is_grpc else HttpExporter()
    provider = TracerProvider(resource=Resource.create({"process.pid": os.getpid()}))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    trace.set_tracer_provider(provider)


class TraceRequests:
    """Opens the span of a request, in the trace of whoever sent it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        context = propagate.extract(request.headers)
        kind = trace.SpanKind.SERVER
        with tracer.start_as_current_span("GET /", context=context, kind=kind):
            return self._get_response(request)
