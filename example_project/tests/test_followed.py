"""What follows from a record, with its consumers at work."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from django.test import Client
from pytest_django import Settings

from clinic.laboratory.consumers import AnalyserJammedError, analyse
from clinic.laboratory.models import Switch
from clinic.records.events import HealthRecordSaved
from clinic.records.models import HealthRecord, Patient
from django_gomq.testing import (
    Ack,
    DeadLettered,
    Gomq,
    RetryAfter,
    assert_listening,
    call,
)

SAVED = HealthRecordSaved(record_id=1, patient_id=7, kind="visit")


@pytest.mark.gomq("inline")
def test_a_record_is_counted_notified_analysed_and_written_down(
    client: Client, patient: Patient, gomq: Gomq
) -> None:
    body = {"patient": patient.pk, "kind": "visit", "note": "", "signed_by": "Dr. Osei"}

    answer = client.post("/records/", body)

    record = HealthRecord.objects.get()
    gomq.assert_emitted(HealthRecordSaved, data={"record_id": record.pk}, count=1)
    assert answer.status_code == HTTPStatus.FOUND
    page = client.get(f"/records/{record.pk}/").content.decode()
    for followed in ("Counted: 1", "A visit was added", "Analysed at attempt 1"):
        assert followed in page


@pytest.mark.gomq("inline")
def test_nothing_follows_from_an_unsigned_record(
    client: Client, patient: Patient, gomq: Gomq
) -> None:
    body = {"patient": patient.pk, "kind": "visit", "note": "", "signed_by": ""}

    client.post("/records/", body)

    gomq.assert_not_emitted(HealthRecordSaved)


@pytest.mark.parametrize("consumer", ["audit.trail", "laboratory.analysis"])
def test_who_hears_of_a_record(consumer: str) -> None:
    assert_listening(HealthRecordSaved, consumer)


@pytest.mark.django_db
def test_a_jammed_analyser_is_tried_again_and_then_given_up(settings: Settings) -> None:
    assert call(analyse, SAVED) == Ack()
    settings.LABORATORY_FAILURE_RATE = 1.0
    Switch.turn("flaky")

    assert isinstance(call(analyse, SAVED, attempt=1), RetryAfter)
    outcome = call(analyse, SAVED, attempt=3)

    assert isinstance(outcome, DeadLettered)
    assert isinstance(outcome.error, AnalyserJammedError)
