"""The statistics app."""

from __future__ import annotations

from django.apps import AppConfig


class StatisticsConfig(AppConfig):
    """Counts of what happened."""

    name = "clinic.statistics"
