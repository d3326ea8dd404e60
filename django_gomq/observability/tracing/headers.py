"""Trace contexts into messages and out again, by the global propagator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import force_setattr
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from django_gomq.bus.message import MAX_HEADER_BYTES, MAX_HEADERS, Message


class UnsampledTrace(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The context of a span that nobody keeps, as a ``TraceContext`` of a message.

    Inside a process nobody reads its headers: the consumer takes the context itself. To
    write them costs 2.1 us and to read them 3.9, this 0.1.
    """

    context: Context

    def write(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers with the ids of this context."""
        return write(self.context, headers)


def carry(message: Message[Any], context: Context) -> None:
    """Have a message carry a context that holds its span and nothing else."""
    force_setattr(message, "trace_context", UnsampledTrace(context))


def write_into(message: Message[Any], context: Context) -> None:
    """Write a context into a message's headers, in the place of one that it carries."""
    force_setattr(message, "trace_context", None)
    message.add_headers(write(context, message.headers))


def write(context: Context, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with the ids of this context.

    The limits of headers hold here too: what does not fit is left out, since a trace
    that is cut is better than a message that the other side will not read.
    """
    found: dict[str, str] = {}
    propagate.inject(found, context)
    together = dict(headers)
    for name, value in found.items():
        if value.isprintable() and _fits({**together, name: value}):
            together[name] = value
    return together


def _fits(headers: Mapping[str, str]) -> bool:
    size = sum(
        len(name) + len(value.encode(errors="surrogatepass"))
        for name, value in headers.items()
    )
    return len(headers) <= MAX_HEADERS and size <= MAX_HEADER_BYTES


def extract(message: Message[Any]) -> tuple[Context, SpanContext | None]:
    """Return the context that a message carries, and its span if it names one."""
    carried = message.trace_context
    if isinstance(carried, UnsampledTrace):
        context = carried.context
    elif message.headers:
        context = propagate.extract(message.headers, Context())
    else:
        return Context(), None
    span_context = trace.get_current_span(context).get_span_context()
    return context, span_context if span_context.is_valid else None
