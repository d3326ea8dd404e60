from __future__ import annotations

from django_gomq import Event


class RecordSaved(Event, type="clinic.record.saved"):
    record_id: int
    note: str = ""


class RecordRead(Event, type="clinic.record.read", no_consumer="ignore"):
    record_id: int


class Untyped(Event):
    record_id: int
