"""What is shown of dead letters does not tell where a patient lives."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.utils.module_loading import import_string


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"patient_id": 7, "city": "Accra"}, {"patient_id": 7, "city": "..."}),
        ({"page": "home"}, {"page": "home"}),
        (None, None),
    ],
)
def test_the_city_of_a_patient_is_hidden(data: object, shown: object) -> None:
    redact = import_string(settings.GOMQ["DEAD_LETTERS"]["REDACT"])

    assert redact(data) == shown
