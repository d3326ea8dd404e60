"""The names of all span attributes; OpenTelemetry may still change its own.

Those that start with ``messaging.`` and ``error.`` follow the semantic conventions
for messaging spans (status: development, read at 1.44), ``gomq.`` are ours, and what
stands under SENTRY_OP is what Sentry's Queues page is made from
(https://develop.sentry.dev/sdk/telemetry/traces/modules/queues/).
"""

from __future__ import annotations

from typing import Final

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
