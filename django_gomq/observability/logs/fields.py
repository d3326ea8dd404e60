"""What is safe to log of messages and errors: one line, bounded, no payload."""

from __future__ import annotations

import re
from typing import Any, Final

from django_gomq.bus.message import Message

MAX_TEXT: Final = 500

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


def printable(text: str) -> str:
    """Return the text, cut to a length, with escapes for what would break a line."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}..."
    return text if text.isprintable() else repr(text)[1:-1]


def error_text(error: BaseException) -> str:
    """Return class and text of an error; an error that cannot say it is no error."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever a class of a handler's author does
        text = "(its text cannot be read)"
    return printable(
        f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


def about(message: Message[Any], attempt: int) -> dict[str, object]:
    """Return the fields that name one attempt, with the trace it was emitted in."""
    fields: dict[str, object] = {
        "gomq_message_id": printable(message.id),
        "gomq_attempt": attempt,
    }
    found = _TRACEPARENT.fullmatch(message.headers.get("traceparent", ""))
    if found:
        fields["trace_id"] = found[1]
    return fields
