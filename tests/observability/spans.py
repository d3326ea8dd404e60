"""A real tracing SDK that keeps its spans in memory, and what they say."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import TraceFlags

from django_gomq.bus.broker import Broker
from django_gomq.observability.tracing import TracingHook

from .conftest import MakeBroker
from .live import wait_until


class Traces:
    """A real SDK that keeps its spans in memory, and brokers that report to it."""

    def __init__(self, make_broker: MakeBroker, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._make_broker = make_broker
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("of the project")

    def broker(self, consumer: Any = "parent", **options: Any) -> Broker:
        hook = TracingHook(consumer=consumer, tracer_provider=self.provider)
        return self._make_broker(hooks=[hook], **options)

    def named(self, name: str) -> list[ReadableSpan]:
        spans = self._exporter.get_finished_spans()
        return [span for span in spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        wait_until(lambda: self.named(name))
        [span] = self.named(name)
        return span


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent_ids(span: ReadableSpan) -> tuple[int, int] | None:
    return span.parent and (span.parent.trace_id, span.parent.span_id)


def linked_ids(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_sampled(headers: dict[str, str]) -> bool:
    return bool(int(headers["traceparent"][-2:], 16) & TraceFlags.SAMPLED)
