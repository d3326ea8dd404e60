"""The names of all span attributes; OpenTelemetry may still change its own.

Those that start with ``messaging.`` and ``error.`` follow the semantic conventions
for messaging spans (status: development, read at 1.44), ``gomq.`` are ours, and what
stands under SENTRY_OP is what Sentry's Queues page is made from
(https://develop.sentry.dev/sdk/telemetry/traces/modules/queues/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.trace import Span, StatusCode
from opentelemetry.util.types import AttributeValue

from django_gomq.bus.delivery import Ack, DeadLettered, Outcome, RetryAfter
from django_gomq.bus.errors import GoMQError, NoConsumerError, error_class_name
from django_gomq.bus.hooks import Attempt
from django_gomq.bus.message import Message

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
BODY_SIZE: Final = "messaging.message.body.size"
"""In bytes; not of batches."""
BATCH_COUNT: Final = "messaging.batch.message_count"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
ERROR_TYPE: Final = "error.type"
"""The class of what a handler raised, or the code of a refusal."""

BROKER: Final = "gomq.broker"
BACKEND: Final = "gomq.backend"
CONSUMER: Final = "gomq.consumer"
ATTEMPT: Final = "gomq.attempt"
"""Which attempt it is, from 1; of a batch, that of its first message."""
WAIT_SECONDS: Final = "gomq.wait_seconds"
"""From when the message was due until this span; the span does not cover it."""
OUTCOME: Final = "gomq.outcome"
"""send: refused or unconsumed, else absent. process: success, error, timeout,
rejected, retry_later."""

SENTRY_OP: Final = "sentry.op"
QUEUE_PUBLISH: Final = "queue.publish"
QUEUE_PROCESS: Final = "queue.process"
RETRY_COUNT: Final = "messaging.message.retry.count"
"""Attempts before this one."""
RECEIVE_LATENCY: Final = "messaging.message.receive.latency"
"""As ``gomq.wait_seconds``, in milliseconds: the unit that Sentry reads it in."""

DJANGO_GOMQ: Final = "django_gomq"
"""The value of ``messaging.system``, and the name of the tracer."""
SEND: Final = "send"
PROCESS: Final = "process"


Attributes = dict[str, AttributeValue]

_MS = 1000.0  # in a second


def describe_send(broker: str, backend: str, message: Message[Any]) -> Attributes:
    """Return what is known of a message before it is handed over."""
    return {
        **_common(SEND, broker, backend),
        **_of_message(message),
        SENTRY_OP: QUEUE_PUBLISH,
    }


def describe_process(attempt: Attempt, message: Message[Any]) -> Attributes:
    """Return what is known of one message and its attempt before the handler."""
    return {**describe_attempt(attempt), **_of_message(message)}


def describe_attempt(attempt: Attempt) -> Attributes:
    """Return what is known of an attempt, be it of one message or of a batch."""
    consumer = attempt.consumer.name
    return {
        **_common(PROCESS, attempt.broker, attempt.backend),
        CONSUMER: consumer,
        CONSUMER_GROUP: consumer,
        ATTEMPT: attempt.number,
        WAIT_SECONDS: attempt.wait_seconds,
        SENTRY_OP: QUEUE_PROCESS,
        RETRY_COUNT: attempt.number - 1,
        RECEIVE_LATENCY: attempt.wait_seconds * _MS,
    }


def _of_message(message: Message[Any]) -> Attributes:
    return {
        DESTINATION: message.type,
        MESSAGE_ID: message.id,
        BODY_SIZE: len(message.body),
    }


def end_send(span: Span, error: Exception | None) -> None:
    """Describe what the hand-over raised, if it did, and end the span."""
    if isinstance(error, NoConsumerError):
        span.set_attribute(OUTCOME, "unconsumed")
    elif isinstance(error, GoMQError):
        span.set_attribute(OUTCOME, "refused")
        span.set_attribute(ERROR_TYPE, error.code)
        span.set_status(StatusCode.ERROR, str(error))
    elif error is not None:
        span.set_attribute(OUTCOME, "refused")
        span.set_attribute(ERROR_TYPE, error_class_name(error))
        # Without the text of a client library, which may quote the payload.
        span.set_status(StatusCode.ERROR)
    span.end()


def _common(operation: str, broker: str, backend: str) -> Attributes:
    return {
        SYSTEM: DJANGO_GOMQ,
        OPERATION_NAME: operation,
        OPERATION_TYPE: operation,
        BROKER: broker,
        BACKEND: backend,
    }


def set_outcome(span: Span, outcomes: Sequence[Outcome]) -> None:
    """Describe what came of it; of a batch, the first failure."""
    failures = [outcome for outcome in outcomes if not isinstance(outcome, Ack)]
    match failures[0] if failures else outcomes[0]:
        case Ack():
            span.set_attribute(OUTCOME, "success")
        case RetryAfter(_, None):
            span.set_attribute(OUTCOME, "retry_later")
        case RetryAfter(_, BaseException() as error, verdict) | DeadLettered(
            error, verdict
        ):
            span.set_attribute(OUTCOME, verdict)
            span.set_attribute(ERROR_TYPE, error_class_name(error))
            # Without the error's text, which may quote the payload; logs have it.
            span.set_status(StatusCode.ERROR)
