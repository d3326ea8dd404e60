"""What happens in the records app, for others to know; it names no consumer."""

from __future__ import annotations

from django_gomq import Event


class HealthRecordSaved(Event, type="health.record.saved", version=1):
    """A health record was saved and committed."""

    record_id: int
    patient_id: int
    kind: str
