"""Names the message and the trace in log records that handlers write."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import ClassVar

from django_gomq.bus.delivery import Outcome
from django_gomq.bus.hooks import Attempt, Hook, Watch

_attempt: ContextVar[Attempt | None] = ContextVar("gomq_attempt", default=None)


class ContextHook(Hook):
    """Remembers, around each handler, what it was given; for ContextFilter."""

    watches_attempts = True

    def attempting(self, attempt: Attempt) -> Watch:
        """Return the watch that remembers this attempt."""
        return _Remembered(attempt)


class _Remembered(Watch):
    __slots__ = ("_remembered", "_token")

    _token: Token[Attempt | None]

    def __init__(self, attempt: Attempt) -> None:
        self._remembered = attempt

    def begin(self) -> None:
        self._token = _attempt.set(self._remembered)

    def end(self, outcomes: Sequence[Outcome]) -> None:
        _attempt.reset(self._token)


class ContextFilter(logging.Filter):
    """Adds fields to every record of the log handlers that ``LOGGING`` gives it to.

    ``trace_id`` and ``span_id`` of the current OpenTelemetry span, in hexadecimal;
    ``gomq_broker``, ``gomq_consumer``, ``gomq_event``, ``gomq_message_id`` and
    ``gomq_attempt`` of the message being handled. Each is empty (0 for the attempt)
    where there is none, and what a record has already stays. Never drops a record.
    """

    in_use: ClassVar[bool] = False
    """Whether one was made; only then need the bus remember anything."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        ContextFilter.in_use = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; thread-safe."""
        for field, value in {**_trace_fields(), **_message_fields()}.items():
            record.__dict__.setdefault(field, value)
        return True


def _message_fields() -> dict[str, object]:
    attempt = _attempt.get()
    if attempt is None:
        return _OUTSIDE
    types = {message.type for message in attempt.messages}
    is_one = len(attempt.messages) == 1
    return {
        "gomq_broker": attempt.broker,
        "gomq_consumer": attempt.consumer.name,
        "gomq_event": types.pop() if len(types) == 1 else "",
        "gomq_message_id": attempt.messages[0].id if is_one else "",
        "gomq_attempt": attempt.number,
    }


_OUTSIDE: dict[str, object] = {
    "gomq_broker": "",
    "gomq_consumer": "",
    "gomq_event": "",
    "gomq_message_id": "",
    "gomq_attempt": 0,
}


def _trace_fields() -> dict[str, object]:
    # Where nobody imported OpenTelemetry there is no span, and no reason to.
    trace = sys.modules.get("opentelemetry.trace")
    get_current_span = getattr(trace, "get_current_span", None)
    if get_current_span is None:
        return _NO_TRACE
    span_context = get_current_span().get_span_context()
    if not span_context.is_valid:
        return _NO_TRACE
    return {
        "trace_id": f"{span_context.trace_id:032x}",
        "span_id": f"{span_context.span_id:016x}",
    }


_NO_TRACE: dict[str, object] = {"trace_id": "", "span_id": ""}
