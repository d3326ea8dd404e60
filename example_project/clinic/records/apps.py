"""The records app: at start it turns the signals of `Patient` into events."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig

from django_gomq import emit_model_events


class RecordsConfig(AppConfig):
    """Patients and health records."""

    name = "clinic.records"

    def ready(self) -> None:
        """Let every saved or deleted patient be known, whoever saved it."""
        emit_model_events(
            "records.Patient",
            created="patient.created",
            updated="patient.updated",
            deleted="patient.deleted",
            data=_patient_data,
        )


# A Patient; its module can be imported only when all apps are ready.
def _patient_data(patient: Any) -> dict[str, object]:
    return {"patient_id": patient.pk, "city": patient.city}
