"""Whether a tracer keeps nothing of a trace that its parent does not keep."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags


def follows_parents(provider: Any) -> bool:
    """Return whether this provider never samples below a parent that is not sampled.

    So does the SDK's default, ``ParentBased``. A provider of another kind is not known,
    and is asked each time.
    """
    sampler = getattr(provider, "sampler", None)
    if type(sampler).__name__ not in _PARENT_BASED:
        return False
    return not any(_samples(sampler, is_remote) for is_remote in (True, False))


_PARENT_BASED = ("ParentBased", "ParentBasedTraceIdRatio")


def _samples(sampler: Any, is_remote: bool) -> bool:
    # Trace ids are sampled from below: one that is hardly above 0 is the first to be.
    parent = NonRecordingSpan(SpanContext(1, 1, is_remote, TraceFlags(0)))
    context = trace.set_span_in_context(parent)
    return bool(sampler.should_sample(context, 1, "process").decision.is_sampled())
