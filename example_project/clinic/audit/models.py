"""The audit trail's table."""

from __future__ import annotations

from django.db import models


class AuditEntry(models.Model):
    """One event, as it was told."""

    # Unique: a batch that is handled again skips what it had written.
    message_id = models.CharField(max_length=64, unique=True)
    event = models.CharField(max_length=200)
    record_id = models.BigIntegerField(null=True, db_index=True)
    data = models.JSONField()
    written_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.event} {self.message_id}"
