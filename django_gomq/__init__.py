"""An observable event bus for Django: the public names, and nothing else."""

from __future__ import annotations

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import BatchFailed, Reject, RetryLater
from django_gomq.bus.errors import (
    BackendUnavailableError,
    BrokerClosedError,
    ConfigurationError,
    DecodeError,
    EncodeError,
    GoMQError,
    MessageError,
    MessageTooLargeError,
    NoConsumerError,
    NotRunningError,
    PublishError,
    PublishTimeoutError,
    PublishUnknownError,
    QueueFullError,
)
from django_gomq.bus.event import Event
from django_gomq.bus.manager import ConsumerManager
from django_gomq.bus.message import Message
from django_gomq.bus.registry import consumer
from django_gomq.bus.retry import Retry
from django_gomq.emit import aemit, emit, emit_many
from django_gomq.options import Receipt
from django_gomq.signals import emit_model_events, emit_on_signal
from django_gomq.site import brokers, get_broker

__all__ = [
    "BackendUnavailableError",
    "BatchFailed",
    "Broker",
    "BrokerClosedError",
    "ConfigurationError",
    "Consumer",
    "ConsumerManager",
    "DecodeError",
    "EncodeError",
    "Event",
    "GoMQError",
    "Message",
    "MessageError",
    "MessageTooLargeError",
    "NoConsumerError",
    "NotRunningError",
    "PublishError",
    "PublishTimeoutError",
    "PublishUnknownError",
    "QueueFullError",
    "Receipt",
    "Reject",
    "Retry",
    "RetryLater",
    "aemit",
    "brokers",
    "consumer",
    "emit",
    "emit_many",
    "emit_model_events",
    "emit_on_signal",
    "get_broker",
]
__version__ = "0.1.0"
