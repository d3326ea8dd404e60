"""Saving a health record emits one event after the commit, and none on a rollback."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from django.test import Client

from clinic import told
from clinic.records.models import HealthRecord, Patient
from django_gomq.testing import assert_emitted, capture

SAVED = "health.record.saved"


@pytest.fixture
def body(patient: Patient) -> dict[str, Any]:
    return {"patient": patient.pk, "kind": "visit", "note": "", "signed_by": "Dr. Osei"}


def post(client: Client, path: str, body: object) -> Any:
    return client.post(path, body, content_type="application/json")


def test_a_record_saved_over_json_emits_its_event(
    client: Client, body: dict[str, Any], patient: Patient
) -> None:
    with capture() as events:
        answer = post(client, "/api/records/", body)

        assert_emitted(
            SAVED, data={"record_id": answer.json()["id"], "kind": "visit"}, count=1
        )
    assert answer.status_code == HTTPStatus.CREATED
    (message,) = events.of(SAVED)
    assert message.key == str(patient.pk)


def test_a_record_saved_by_the_form_emits_its_event(
    client: Client, body: dict[str, Any]
) -> None:
    with capture():
        answer = client.post("/records/", body)

        record = HealthRecord.objects.get()
        assert_emitted(SAVED, data={"record_id": record.pk}, count=1)
    assert answer.headers["Location"] == f"/records/{record.pk}/"


def test_an_answer_tells_what_became_of_its_event(
    client: Client, body: dict[str, Any]
) -> None:
    with capture():
        answer = post(client, "/api/records/", body)

    assert answer.json()["accepted"] is True
    assert told.read(answer.headers[told.HEADER]).total() == 1


@pytest.mark.parametrize("path", ["/api/records/", "/records/"])
def test_an_unsigned_record_is_rolled_back_with_its_event(
    client: Client, body: dict[str, Any], path: str
) -> None:
    kind = "application/json" if path.startswith("/api") else None
    unsigned = {**body, "signed_by": ""}

    with capture() as events:
        extra = {"content_type": kind} if kind else {}
        answer = client.post(path, unsigned, **extra)  # type: ignore[arg-type]

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert told.read(answer.headers[told.HEADER]) == {(SAVED, "rolled_back"): 1}
    assert not HealthRecord.objects.exists()
    assert events.of(SAVED) == []


def test_a_batch_of_records_emits_an_event_for_each(
    client: Client, body: dict[str, Any]
) -> None:
    with capture() as events:
        answer = post(client, "/api/records/bulk/", {"records": [body] * 3})

    assert answer.json()["accepted"] == 3
    emitted = [message.data.record_id for message in events.of(SAVED)]
    assert emitted == answer.json()["ids"]


def test_one_unsigned_record_takes_its_whole_batch_back(
    client: Client, body: dict[str, Any]
) -> None:
    batch = {"records": [body, {**body, "signed_by": ""}]}

    with capture() as events:
        answer = post(client, "/api/records/bulk/", batch)

    assert answer.json()["rolled_back"] is True
    assert not HealthRecord.objects.exists()
    assert events.of(SAVED) == []


@pytest.mark.parametrize(
    ("path", "wrong", "field"),
    [
        ("/api/records/", "{", "body"),
        ("/api/records/", [], "body"),
        ("/api/records/", {"kind": "visit"}, "patient"),
        ("/api/records/bulk/", {"records": 5}, "records"),
        ("/api/records/bulk/", {"records": []}, "records"),
        ("/api/records/bulk/", {"records": [{}]}, "patient"),
        ("/api/patients/", {"name": ""}, "name"),
    ],
)
@pytest.mark.django_db
def test_a_wrong_body_is_answered_with_its_fields(
    client: Client, path: str, wrong: object, field: str
) -> None:
    with capture() as events:
        answer = post(client, path, wrong)

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert field in answer.json()["errors"]
    assert list(events) == []


def test_an_unknown_kind_is_refused_before_any_event(
    client: Client, body: dict[str, Any]
) -> None:
    with capture() as events:
        answer = client.post("/records/", {**body, "kind": "vaccinashun"})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert events.of(SAVED) == []
