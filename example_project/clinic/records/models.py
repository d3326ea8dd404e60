"""Tables of the records app."""

from __future__ import annotations

from django.db import models


class Patient(models.Model):
    """A person the clinic treats."""

    name = models.CharField(max_length=100)
    city = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.name


class HealthRecord(models.Model):
    """One entry in a patient's history."""

    class Kind(models.TextChoices):
        """What was done."""

        VISIT = "visit"
        VACCINATION = "vaccination"
        PRESCRIPTION = "prescription"
        MEASUREMENT = "measurement"

    patient = models.ForeignKey(Patient, models.CASCADE, related_name="records")
    kind = models.CharField(max_length=20, choices=Kind)
    note = models.CharField(max_length=200, blank=True)
    signed_by = models.CharField(max_length=100, blank=True)
    saved_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} #{self.pk}"
