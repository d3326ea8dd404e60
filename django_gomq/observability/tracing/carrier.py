"""Trace contexts into message headers and out again, by the global propagator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from django_gomq.bus.message import MAX_HEADER_BYTES, MAX_HEADERS, Message


def inject(message: Message[Any], context: Context) -> None:
    """Write the ids of this context into the headers of a message.

    The limits of headers hold here too: what does not fit is left out, since a trace
    that is cut is better than a message that the other side will not read.
    """
    found: dict[str, str] = {}
    propagate.inject(found, context)
    headers = message.headers
    for name, value in found.items():
        if value.isprintable() and _fits({**headers, name: value}):
            headers[name] = value


def _fits(headers: Mapping[str, str]) -> bool:
    size = sum(
        len(name) + len(value.encode(errors="surrogatepass"))
        for name, value in headers.items()
    )
    return len(headers) <= MAX_HEADERS and size <= MAX_HEADER_BYTES


def extract(message: Message[Any]) -> tuple[Context, SpanContext | None]:
    """Return the context that a message carries, and its span if it names one."""
    if not message.headers:
        return Context(), None
    context = propagate.extract(message.headers, Context())
    span_context = trace.get_current_span(context).get_span_context()
    return context, span_context if span_context.is_valid else None
