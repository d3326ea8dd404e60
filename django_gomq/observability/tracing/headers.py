"""Trace contexts into message headers and out again, by the global propagator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import force_setattr
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from django_gomq.bus.message import MAX_HEADER_BYTES, MAX_HEADERS, Message


class CarriedHeaders(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Headers with those of a trace context, which are written when somebody looks.

    Inside a process nobody does: the consumer takes the context itself. To write them
    costs 2.1 us and to read them 3.9, this 0.1. A ``Mapping[str, str]``.
    """

    context: Context
    others: Mapping[str, str]
    written: dict[str, str] | None = None

    def _write(self) -> dict[str, str]:
        if self.written is None:
            force_setattr(self, "written", write(self.context, self.others))
        return self.written or {}

    def keys(self) -> Iterator[str]:
        """Return the names; with ``[]`` this is what ``dict()`` asks for."""
        return iter(self._write())

    def __iter__(self) -> Iterator[str]:
        return iter(self._write())

    def __len__(self) -> int:
        return len(self._write())

    def __getitem__(self, name: str) -> str:
        return self._write()[name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return one header."""
        return self._write().get(name, default)

    def items(self) -> Any:
        """Return names and values."""
        return self._write().items()


Mapping.register(CarriedHeaders)


def carry(message: Message[Any], context: Context) -> None:
    """Have a message carry the ids in this context; nothing else goes along."""
    headers: Any = message.headers
    if len(context) > 1:  # more than the span, which instrumentations leave alone there
        message.add_headers(write(context, headers))
        return
    if type(headers) is CarriedHeaders:  # it was published before
        headers = headers.others
    force_setattr(message, "headers", CarriedHeaders(context, headers))


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
    headers = message.headers
    if not headers:
        return Context(), None
    if isinstance(headers, CarriedHeaders):
        context = headers.context
    else:
        context = propagate.extract(dict(headers), Context())
    span_context = trace.get_current_span(context).get_span_context()
    return context, span_context if span_context.is_valid else None
