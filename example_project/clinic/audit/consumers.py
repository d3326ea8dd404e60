"""The batch consumer behind the audit trail; it takes whole families of events."""

from __future__ import annotations

from typing import Any

from clinic.audit.models import AuditEntry
from django_gomq import Message, Retry, consumer


@consumer(
    "health.*",
    "patient.*",
    name="audit.trail",
    batch=100,
    linger=0.2,
    retry=Retry(attempts=5, min_delay=0.2),
)
def write_trail(messages: list[Message[Any]]) -> None:
    """Write one batch with one INSERT, however often this runs."""
    AuditEntry.objects.bulk_create(map(_entry, messages), ignore_conflicts=True)


def _entry(message: Message[Any]) -> AuditEntry:
    return AuditEntry(
        message_id=str(message.id),
        event=message.type,
        record_id=message.data.get("record_id"),
        data=message.data,
    )
