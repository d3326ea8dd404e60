"""Saving records: rows and events in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from clinic.records.events import HealthRecordSaved
from clinic.records.models import HealthRecord
from django_gomq import Receipt, emit, emit_many


class UnsignedRecordError(Exception):
    """A record needs a doctor's name: sign it and save it again."""


def save_record(record: HealthRecord) -> Receipt:
    """Save one record; its event leaves after the commit, or never."""
    with transaction.atomic():
        record.save()
        receipt = emit(_saved(record), key=str(record.patient_id))
        # Last on purpose: the event is pending by now, and the rollback takes it back.
        _require_signature(record)
    return receipt


def save_records(records: Sequence[HealthRecord]) -> list[Receipt]:
    """Save many records and emit their events as one batch: all of them, or none."""
    with transaction.atomic():
        saved = HealthRecord.objects.bulk_create(records)
        receipts = emit_many([_saved(record) for record in saved])
        for record in saved:
            _require_signature(record)
    return list(receipts)


def _saved(record: HealthRecord) -> HealthRecordSaved:
    return HealthRecordSaved(
        record_id=record.pk, patient_id=record.patient_id, kind=record.kind
    )


def _require_signature(record: HealthRecord) -> None:
    if not record.signed_by:
        raise UnsignedRecordError
