"""Makes dead letters in the database of a broker, and settings that have one."""

from __future__ import annotations

import itertools
import time
from typing import Any, Final

from django_gomq.bus.message import Message
from django_gomq.bus.wire import encode_structured
from django_gomq.models import RecordedConsumer, StoredDeadLetter

DATABASE: Final = "django_gomq.backends.database.DatabaseBackend"
BROKERS: Final = {"default": {"BACKEND": DATABASE, "RUN": "here"}}

_numbers = itertools.count(1)


def bury(error: str = "ValueError: no 1", **fields: Any) -> StoredDeadLetter:
    """Make one; its event is not kept any more."""
    using = fields.pop("using", "default")
    body: bytes = fields.pop("body", b'{"name": "Ada B.", "secret": "pin-1"}')
    envelope = {
        name: fields.pop(name) for name in ("key", "priority") if name in fields
    }
    event_type = fields.get("type", "health.record.saved")
    message = Message[Any](event_type, body, **envelope)
    now = time.time()
    values = {
        "event_id": next(_numbers),
        "broker": "default",
        "consumer": "health.statistics",
        "type": message.type,
        "message_id": message.id,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "attempt": 3,
        "error_type": error.partition(":")[0],
        "error": error,
        "traceback": f'Traceback:\n  File "x.py", line 1\n{error}',
        "first_failed": now - 60,
        "failed": now,
        "envelope": encode_structured(message, source="tests"),
    }
    return StoredDeadLetter.objects.using(using).create(**{**values, **fields})


def redact(data: Any) -> Any:
    """Hide what is secret; fails for what has no secret."""
    return {**data, "secret": f"{len(data['secret'])} characters"}


def redact_into_an_object(data: Any) -> Any:
    """Return what has no JSON form, and shows all in its repr."""
    return {"all": {repr(data)}}


def record(*consumers: str, using: str = "default", ordered: bool = False) -> None:
    """Record consumers, as ``gomq setup`` does."""
    for name in consumers:
        RecordedConsumer.objects.using(using).create(
            name=name, types="[]", ordered=ordered
        )
