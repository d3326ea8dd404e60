"""Trace ids on against off, under spans that are sampled out, another at each emit."""

from __future__ import annotations

import contextvars
import random
import statistics
from collections.abc import Callable, Mapping
from itertools import cycle, islice

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from benchmarks.cases.bursts import BURST
from benchmarks.cases.bus import Bus, OrderPaid
from benchmarks.sink import BODY, DATA, NS, PATIENCE, TYPE, now
from django_gomq import Message, emit

REQUESTS = 256  # under way at once


def emit_traced(
    messages: int, bursts: int, *, is_on: bool
) -> Callable[[], Mapping[str, float]]:
    """Emit in bursts, then publish flat out; on and off differ by one setting alone."""
    trace.set_tracer_provider(TracerProvider(sampler=ParentBased(ALWAYS_OFF)))
    bus = Bus(overflow="backpressure", gomq={"TRACING": {"ENABLED": is_on}})

    def run() -> Mapping[str, float]:
        return {
            "each": statistics.median(_time_burst(bus) for _ in range(bursts)) * NS,
            "handled": messages / _time_flow(bus, messages),
        }

    return run


def _time_burst(bus: Bus) -> int:
    """Time each emit alone, as its request is made and left behind between two."""
    event = OrderPaid(**DATA)
    times = []
    for _ in range(BURST):
        request = _make_request()
        began = now()
        request.run(emit, event)
        times.append(now() - began)
    bus.settle(BURST)
    return int(statistics.median(times))


def _time_flow(bus: Bus, messages: int) -> float:
    # A request emits soon after its span was made: a list of all, made beforehand,
    # would have left the cache by then.
    requests = [_make_request() for _ in range(REQUESTS)]
    publish = bus.broker.publish
    began = now()
    for request in islice(cycle(requests), messages):
        request.run(publish, Message(TYPE, BODY), timeout=PATIENCE)
    bus.settle(messages)
    return (now() - began) * NS


def _make_request() -> contextvars.Context:
    """Return a context inside a span of its own, as every request has one."""
    request = contextvars.copy_context()
    request.run(otel_context.attach, trace.set_span_in_context(_make_span()))
    return request


def _make_span() -> NonRecordingSpan:
    return NonRecordingSpan(
        SpanContext(
            trace_id=random.getrandbits(128) | 1,
            span_id=random.getrandbits(64) | 1,
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.DEFAULT),
        )
    )
