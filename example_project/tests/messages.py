"""Messages as a consumer gets them; they travelled over no bus."""

from __future__ import annotations

import json
from typing import Any

from clinic.records.events import HealthRecordSaved
from django_gomq import Message
from django_gomq.bus.delivery import Delivery, receive


def saved(record_id: int = 1, attempt: int = 1) -> Message[HealthRecordSaved]:
    """Return a message with a typed event, as typed subscriptions get it."""
    event = HealthRecordSaved(record_id=record_id, patient_id=7, kind="visit")
    message: Message[Any] = Message(type="health.record.saved")
    delivery = Delivery(message, available=0.0, attempt=attempt)
    return receive(delivery, {message.type: lambda _: event})


def plain(kind: str, **data: object) -> Message[Any]:
    """Return a message with plain JSON data, as all other subscriptions get it."""
    return Message(type=kind, body=json.dumps(data).encode())
