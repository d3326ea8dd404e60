from __future__ import annotations

from typing import ClassVar

from django.db import models


class Row(models.Model):
    """One thing that a handler did with one message."""

    consumer = models.CharField(max_length=20)
    what = models.CharField(max_length=20)
    number = models.IntegerField()
    objects: ClassVar[models.Manager[Row]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.consumer} {self.what} {self.number}"
