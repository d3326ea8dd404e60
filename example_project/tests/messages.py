"""Messages as a consumer gets them; they travelled over no bus."""

from __future__ import annotations

import json
from typing import Any

from clinic.records.events import HealthRecordSaved
from django_gomq import Message


def saved(record_id: int = 1, **changes: Any) -> Message[HealthRecordSaved]:
    """Return a message with a typed event, as typed subscriptions get it."""
    event = HealthRecordSaved(record_id=record_id, patient_id=7, kind="visit")
    return Message(type="health.record.saved", decoded=[event], **changes)


def plain(kind: str, **data: object) -> Message[Any]:
    """Return a message with plain JSON data, as all other subscriptions get it."""
    return Message(type=kind, body=json.dumps(data).encode())
