"""What a message is outside of its process."""

from __future__ import annotations

from typing import Any

from .message import Message


def wire_headers(message: Message[Any]) -> dict[str, str]:
    """Return what a server has to keep: a copy of the headers, with the trace's.

    The trace is what an observer has the message carry (``Message.trace_context``);
    its headers replace those of the same name. Thread-safe, never blocks or raises.
    """
    trace = message.trace_context
    if trace is None:
        return dict(message.headers)
    return trace.write(message.headers)
