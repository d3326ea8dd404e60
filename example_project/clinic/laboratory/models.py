"""Analyses, and the switch of the analyser."""

from __future__ import annotations

from django.db import models


class Switch(models.Model):
    """How the analyser behaves: one row, so that every process sees the same."""

    class Mode(models.TextChoices):
        """The positions of the switch."""

        NORMAL = "normal"
        SLOW = "slow"
        FLAKY = "flaky"

    mode = models.CharField(max_length=10, choices=Mode, default=Mode.NORMAL)

    def __str__(self) -> str:
        return self.mode

    @classmethod
    def current(cls) -> str:
        """Read the position; nobody turned it yet means normal."""
        mode = cls.objects.filter(pk=1).values_list("mode", flat=True).first()
        return mode or cls.Mode.NORMAL

    @classmethod
    def turn(cls, mode: str) -> None:
        """Turn the switch, for every process at once."""
        cls.objects.update_or_create(pk=1, defaults={"mode": mode})


class Analysis(models.Model):
    """The result of one analysis."""

    # Unique: a message that is handled again finds the row of the first time.
    message_id = models.CharField(max_length=64, unique=True)
    record_id = models.BigIntegerField(db_index=True)
    attempt = models.PositiveIntegerField()
    done_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"Analysis of record {self.record_id}"
