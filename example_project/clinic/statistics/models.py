"""Counts, by the consumer that keeps them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models, transaction
from django.db.models import F


class CountManager(models.Manager["Count"]):
    """Adds to counts without losing one to another thread."""

    def add(self, consumer: str, name: str, step: int = 1) -> None:
        """Add `step` to one count, which begins at zero."""
        with transaction.atomic():
            count, _ = self.get_or_create(consumer=consumer, name=name)
            self.filter(pk=count.pk).update(value=F("value") + step)


class Count(models.Model):
    """How often one thing happened."""

    consumer = models.CharField(max_length=100)
    name = models.CharField(max_length=100)
    value = models.BigIntegerField(default=0)

    objects = CountManager()

    class Meta:
        """One row for each thing that a consumer counts."""

        constraints: ClassVar = [
            models.UniqueConstraint(fields=["consumer", "name"], name="count_once")
        ]

    def __str__(self) -> str:
        return f"{self.consumer} {self.name}: {self.value}"
