"""What a patient and a record must look like, for pages and JSON alike."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from clinic.records.models import HealthRecord, Patient


class PatientForm(forms.ModelForm):  # type: ignore[type-arg]
    """A patient, as a page or a JSON body gives it."""

    class Meta:
        """The fields that a caller may set."""

        model = Patient
        fields: ClassVar = ["name", "city"]


class RecordForm(forms.ModelForm):  # type: ignore[type-arg]
    """A record, as a page or a JSON body gives it."""

    class Meta:
        """The fields that a caller may set."""

        model = HealthRecord
        fields: ClassVar = ["patient", "kind", "note", "signed_by"]
