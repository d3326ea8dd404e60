"""The current trace context of a thread or task, found without a detour; no span."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, Literal, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TracerProvider,
)

from django_gomq.bus.delivery import Outcome
from django_gomq.bus.hooks import Attempt, EndOfPublish, Hook, Watch
from django_gomq.bus.message import Message

from . import spans as name
from .headers import UnsampledTrace, carry, extract, write_into
from .spans import (
    describe_attempt,
    describe_process,
    describe_send,
    end_send,
    set_outcome,
)

SPAN_KEY: Final[str] = next(iter(trace.set_span_in_context(trace.INVALID_SPAN)))
"""Where a context keeps its span: ``get_current_span`` takes 220 ns, its key 24."""


def _find_variable() -> ContextVar[Context] | None:
    # The SDK's only runtime keeps one ContextVar; the functions of the API around it
    # take 50 ns to read it and 100 to set it, where it takes 12 and 45 itself.
    runtime = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    found: Any = getattr(runtime, "_current_context", None)
    return found if isinstance(found, ContextVar) else None


_variable = _find_variable()

get_current: Final[Callable[[], Context]] = (
    otel_context.get_current if _variable is None else _variable.get
)
attach: Final[Callable[[Context], object]] = (
    otel_context.attach if _variable is None else _variable.set
)

TRACE_FLAGS: Final = 3
"""Where a span context has its flags: it is a tuple, whose properties take 60 ns."""

SAMPLED: Final[int] = TraceFlags.SAMPLED


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


def is_sdk_configured() -> bool:
    """Whether this process has a tracer provider that keeps spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    provider = trace.get_tracer_provider()
    return not isinstance(provider, ProxyTracerProvider | NoOpTracerProvider)


class TracingHook(Hook):
    """Gives every message a ``send`` span, and every attempt a ``process`` span.

    ``consumer`` says how the two hang together: ``"parent"`` puts the process span
    into the trace of the emit, with a link besides; ``"link"`` starts a trace of its
    own that links to it. Batches always link, to all of their messages. A send span
    is made only inside a span that records: a kept span costs 15 times the emit.

    Thread-safe. Raises ValueError for another value of ``consumer``.
    """

    watches_publishing = True
    watches_attempts = True

    def __init__(
        self,
        consumer: Literal["parent", "link"] = "parent",
        *,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if consumer not in ("parent", "link"):
            raise ValueError(f"consumer is {consumer!r}, not 'parent' or 'link'.")
        self._is_parent = consumer == "parent"
        provider = tracer_provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(name.DJANGO_GOMQ)
        # A trace of its own may be kept whatever became of the emit's.
        self.has_unsampled_path = self._is_parent and follows_parents(provider)

    def capture_context(self) -> object:
        """Return the context of the emit, for a message that waits for its commit."""
        return otel_context.get_current()

    def publishing(
        self, broker: str, backend: str, message: Message[Any], parent: object
    ) -> EndOfPublish | None:
        """Start a send span, or pass on the ids of a span that does not record."""
        context = get_current() if parent is None else cast("Context", parent)
        ambient: Any = context.get(SPAN_KEY)
        if ambient is None:
            return None
        if not _is_kept(ambient):
            if _is_carried(ambient, context):
                carry(message, context)
            else:
                write_into(message, context)
            return None
        span = self._tracer.start_span(
            f"{name.SEND} {message.type}",
            context,
            SpanKind.PRODUCER,
            describe_send(broker, backend, message),
        )
        write_into(message, trace.set_span_in_context(span, context))
        return lambda error: end_send(span, error)

    def propagate_unsampled(self, message: Message[Any]) -> bool:
        """Have a message carry the ids of a span that nobody keeps."""
        # Every emit comes through here: each line costs 15 to 60 ns. The handler's
        # thread, on another core, would pay 500 for a look into the context.
        context = get_current()
        if not context:
            return True
        ambient = context.get(SPAN_KEY)
        if type(ambient) is not NonRecordingSpan or not _is_carried(ambient, context):
            return False
        carry(message, context)
        return True

    def enter_unsampled(
        self, message: Message[Any], context: contextvars.Context
    ) -> bool:
        """Have a handler run in the emit's own context where no span would be kept."""
        carried = message.trace_context
        if type(carried) is not UnsampledTrace:
            return False
        context.run(attach, carried.context)
        return True

    def attempting(self, attempt: Attempt) -> Watch:
        """Return the watch that has a process span around the handler."""
        return _ProcessSpan(self._start_process, attempt)

    def _start_process(self, attempt: Attempt) -> tuple[Span, Context]:
        if attempt.consumer.batch is not None:
            return self._start_batch(attempt)
        message = attempt.messages[0]
        context, origin = extract(message)
        span = self._tracer.start_span(
            f"{name.PROCESS} {message.type}",
            context if self._is_parent else Context(),
            SpanKind.CONSUMER,
            describe_process(attempt, message),
            [Link(origin)] if origin is not None else None,
        )
        return span, trace.set_span_in_context(span, context)

    def _start_batch(self, attempt: Attempt) -> tuple[Span, Context]:
        origins = [(message.id, extract(message)[1]) for message in attempt.messages]
        types = {message.type for message in attempt.messages}
        attributes = describe_attempt(attempt)
        attributes[name.BATCH_COUNT] = len(attempt.messages)
        destination = attempt.consumer.name
        if len(types) == 1:
            attributes[name.DESTINATION] = destination = types.pop()
        span = self._tracer.start_span(
            f"{name.PROCESS} {destination}",
            Context(),
            SpanKind.CONSUMER,
            attributes,
            [
                Link(origin, {name.MESSAGE_ID: message_id})
                for message_id, origin in origins
                if origin is not None
            ],
        )
        return span, trace.set_span_in_context(span, Context())


class _ProcessSpan(Watch):
    """One process span, current in the context of the handler."""

    __slots__ = ("_attempt", "_span", "_start", "_token", "trace_id")

    def __init__(
        self, start: Callable[[Attempt], tuple[Span, Context]], attempt: Attempt
    ) -> None:
        self._start = start
        self._attempt = attempt
        self.trace_id = None

    def begin(self) -> None:
        self._span, context = self._start(self._attempt)
        self._token = otel_context.attach(context)
        span_context = self._span.get_span_context()
        if span_context.trace_flags.sampled and self._span.is_recording():
            self.trace_id = trace.format_trace_id(span_context.trace_id)

    def end(self, outcomes: Sequence[Outcome]) -> None:
        try:
            if self._span.is_recording():
                set_outcome(self._span, outcomes)
        finally:
            otel_context.detach(self._token)
            self._span.end()


def _is_kept(span: Span) -> bool:
    """Whether a child of this span will be seen; the span itself may have ended."""
    if type(span) is NonRecordingSpan:
        return False
    return span.is_recording() or span.get_span_context().trace_flags.sampled


def _is_carried(ambient: Span, context: Context) -> bool:
    """Whether nobody keeps this span, and nothing else is there to be written."""
    return len(context) == 1 and not ambient.get_span_context()[TRACE_FLAGS] & SAMPLED
