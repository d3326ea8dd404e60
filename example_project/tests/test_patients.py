"""The signals of the Patient model become events."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from django.test import Client

from clinic import told
from clinic.records.models import Patient
from django_gomq.testing import assert_emitted, capture


@pytest.mark.django_db
def test_a_new_patient_is_told() -> None:
    with capture():
        patient = Patient.objects.create(name="Ada 001", city="Lyon")

        assert_emitted(
            "patient.created", data={"patient_id": patient.pk, "city": "Lyon"}, count=1
        )


def test_a_moved_patient_is_told(patient: Patient, client: Client) -> None:
    moved = {"name": patient.name, "city": "Graz"}

    with capture():
        client.put(
            f"/api/patients/{patient.pk}/", moved, content_type="application/json"
        )

        assert_emitted(
            "patient.updated", data={"patient_id": patient.pk, "city": "Graz"}, count=1
        )


def test_a_deleted_patient_is_told(patient: Patient, client: Client) -> None:
    number = patient.pk

    with capture():
        answer = client.delete(f"/api/patients/{number}/")

        assert_emitted("patient.deleted", data={"patient_id": number}, count=1)
    assert answer.status_code == HTTPStatus.NO_CONTENT


@pytest.mark.django_db
def test_the_form_adds_a_patient(client: Client) -> None:
    with capture():
        answer = client.post("/patients/add/", {"name": "Hana 002", "city": "Gent"})

        assert_emitted("patient.created", data={"city": "Gent"}, count=1)
    assert told.read(answer.headers[told.HEADER]) == {("patient.created", "sent"): 1}


@pytest.mark.django_db
def test_a_patient_needs_a_name(client: Client) -> None:
    with capture() as events:
        answer = client.post("/patients/add/", {"city": "Gent"})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert events.of("patient.created") == []
