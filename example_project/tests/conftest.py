"""A patient to start from."""

from __future__ import annotations

import pytest

from clinic.records.models import Patient


@pytest.fixture
def patient(db: None) -> Patient:
    return Patient.objects.create(name="Ada 001", city="Lyon")
