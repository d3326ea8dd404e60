"""What spans tell of a send, of an attempt and of its outcome; it starts no span."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.trace import Span, StatusCode
from opentelemetry.util.types import AttributeValue

from django_gomq.bus.errors import GoMQError, NoConsumerError
from django_gomq.bus.hook import Attempt
from django_gomq.bus.message import Message
from django_gomq.bus.outcome import Ack, DeadLettered, Outcome, RetryAfter

from . import attributes as name

Attributes = dict[str, AttributeValue]

_MS = 1000.0  # in a second


def describe_send(broker: str, backend: str, message: Message[Any]) -> Attributes:
    """Return what is known of a message before it is handed over."""
    return {
        **_common(name.SEND, broker, backend),
        **_of_message(message),
        name.SENTRY_OP: name.QUEUE_PUBLISH,
    }


def describe_process(attempt: Attempt, message: Message[Any]) -> Attributes:
    """Return what is known of one message and its attempt before the handler."""
    return {**describe_attempt(attempt), **_of_message(message)}


def describe_attempt(attempt: Attempt) -> Attributes:
    """Return what is known of an attempt, be it of one message or of a batch."""
    consumer = attempt.consumer.name
    return {
        **_common(name.PROCESS, attempt.broker, attempt.backend),
        name.CONSUMER: consumer,
        name.CONSUMER_GROUP: consumer,
        name.ATTEMPT: attempt.number,
        name.WAIT_SECONDS: attempt.wait_seconds,
        name.SENTRY_OP: name.QUEUE_PROCESS,
        name.RETRY_COUNT: attempt.number - 1,
        name.RECEIVE_LATENCY: attempt.wait_seconds * _MS,
    }


def _of_message(message: Message[Any]) -> Attributes:
    return {
        name.DESTINATION: message.type,
        name.MESSAGE_ID: message.id,
        name.BODY_SIZE: len(message.body),
    }


def end_send(span: Span, error: Exception | None) -> None:
    """Describe what the hand-over raised, if it did, and end the span."""
    if isinstance(error, NoConsumerError):
        span.set_attribute(name.OUTCOME, "unconsumed")
    elif isinstance(error, GoMQError):
        span.set_attribute(name.OUTCOME, "refused")
        span.set_attribute(name.ERROR_TYPE, error.code)
        span.set_status(StatusCode.ERROR, str(error))
    elif error is not None:
        span.set_attribute(name.OUTCOME, "refused")
        span.set_attribute(name.ERROR_TYPE, type(error).__qualname__)
        # Without the text of a client library, which may quote the payload.
        span.set_status(StatusCode.ERROR)
    span.end()


def _common(operation: str, broker: str, backend: str) -> Attributes:
    return {
        name.SYSTEM: name.DJANGO_GOMQ,
        name.OPERATION_NAME: operation,
        name.OPERATION_TYPE: operation,
        name.BROKER: broker,
        name.BACKEND: backend,
    }


def tell_outcome(span: Span, outcomes: Sequence[Outcome]) -> None:
    """Describe what came of it; of a batch, the first failure."""
    failures = [one for one in outcomes if not isinstance(one, Ack)]
    match failures[0] if failures else outcomes[0]:
        case Ack():
            span.set_attribute(name.OUTCOME, "success")
        case RetryAfter(_, None):
            span.set_attribute(name.OUTCOME, "retry_later")
        case RetryAfter(_, BaseException() as error, verdict) | DeadLettered(
            error, verdict
        ):
            span.set_attribute(name.OUTCOME, verdict)
            span.set_attribute(name.ERROR_TYPE, type(error).__qualname__)
            # Without the error's text, which may quote the payload; logs have it.
            span.set_status(StatusCode.ERROR)
