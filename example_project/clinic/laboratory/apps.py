"""The laboratory app."""

from __future__ import annotations

from django.apps import AppConfig


class LaboratoryConfig(AppConfig):
    """The analyser, which can be made slow or flaky."""

    name = "clinic.laboratory"
