"""The audit app."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """A trail of what happened."""

    name = "clinic.audit"
