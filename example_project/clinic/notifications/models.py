"""What was sent to patients."""

from __future__ import annotations

from django.db import models


class Notification(models.Model):
    """One text to one patient."""

    # Unique: a message that is handled again finds the row of the first time.
    message_id = models.CharField(max_length=64, unique=True)
    patient_id = models.BigIntegerField()
    record_id = models.BigIntegerField(db_index=True)
    text = models.CharField(max_length=200)
    sent_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.text
