"""The async consumer that tells patients; it knows the event and not who emits it."""

from __future__ import annotations

from clinic.notifications.models import Notification
from clinic.records.events import HealthRecordSaved
from django_gomq import Message, Retry, consumer


@consumer(
    HealthRecordSaved,
    name="notifications.patient",
    retry=Retry(attempts=5, min_delay=0.2),
    concurrency=4,
    # A letter waits in a table rather than being dropped where the channel is full.
    overflow="spill",
)
async def notify(message: Message[HealthRecordSaved]) -> None:
    """Tell the patient about a new record, once however often this runs."""
    await Notification.objects.aget_or_create(
        message_id=str(message.id),
        defaults={
            "patient_id": message.data.patient_id,
            "record_id": message.data.record_id,
            "text": f"A {message.data.kind} was added to your health record.",
        },
    )
