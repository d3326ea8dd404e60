"""What happened: a row that is written in the transaction of its event."""

from __future__ import annotations

from django.db import models


class Record(models.Model):
    """Stands in the table if, and only if, its event was committed."""

    id = models.CharField(max_length=60, primary_key=True)

    class Meta:
        app_label = "chaos"

    def __str__(self) -> str:
        return self.id
