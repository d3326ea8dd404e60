from __future__ import annotations

from typing import Any

from opentelemetry import trace

from django_gomq import Message, consumer


@consumer("visit.made", name="visits")
def note(message: Message[Any]) -> None:
    """Do some work that has a span of its own."""
    with trace.get_tracer("site").start_as_current_span("note"):
        assert message.data
