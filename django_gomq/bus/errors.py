"""Every error of the bus."""

from __future__ import annotations

import traceback
from typing import ClassVar


class GoMQError(Exception):
    """Root of all errors of django-gomq.

    ``code`` is stable and safe as a metric label. ``event``, ``consumer`` and
    ``broker`` name what the error is about, as far as that is known.
    """

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        event: str | None = None,
        consumer: str | None = None,
        broker: str | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.consumer = consumer
        self.broker = broker


class ConfigurationError(GoMQError):
    """A setting, a registration or a call that can never work as written."""

    code = "configuration"


class PublishError(GoMQError):
    """The message was refused: no consumer will see it, and the caller was told."""

    code = "refused"


class NoConsumerError(PublishError):
    """No enabled consumer subscribes to the event type."""

    code = "no_consumer"


class QueueFullError(PublishError):
    """The queue of the event type has no room."""

    code = "queue_full"


class PublishTimeoutError(PublishError):
    """The queue of the event type had no room within the given timeout."""

    code = "timeout"


class BrokerClosedError(PublishError):
    """The broker is draining or has stopped."""

    code = "closed"


class NotRunningError(PublishError):
    """Nothing handles messages in this process, or the dispatcher is down."""

    code = "not_running"


class BackendUnavailableError(PublishError):
    """The server behind the broker cannot be reached."""

    code = "unavailable"


class PublishUnknownError(PublishError):
    """The server did not answer in time: it may have the message, or not."""

    code = "unknown"


class MessageError(GoMQError):
    """The message itself is wrong; the same call would fail again."""

    code = "invalid_message"


class EncodeError(MessageError):
    """The data cannot be written as JSON, or does not fit its Event class."""

    code = "encode"


class DecodeError(MessageError):
    """What was read is no CloudEvent, no JSON, or does not fit its Event class."""

    code = "decode"


class MessageTooLargeError(MessageError):
    """The body or the headers exceed their limit."""

    code = "too_large"


def describe_error(error: BaseException) -> str:
    """Return class and text of an error."""
    return f"{type(error).__name__}: {error}"


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an error."""
    return "".join(traceback.format_exception(error))
