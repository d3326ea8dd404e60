from __future__ import annotations

from django.db import models


class Tag(models.Model):
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Record(models.Model):
    patient_id = models.IntegerField()
    note = models.CharField(max_length=200, default="")
    tags = models.ManyToManyField(Tag, related_name="records")

    def __str__(self) -> str:
        return f"record {self.pk}"
