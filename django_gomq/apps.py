"""The Django app: ready() registers and validates, and starts nothing."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed

from django_gomq import site


class GomqConfig(AppConfig):
    """django-gomq: an observable event bus."""

    name = "django_gomq"
    label = "gomq"
    verbose_name = "Event bus"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Read the settings, import consumers, make brokers.

        Starts no thread, opens no socket and runs no query. Raises ConfigurationError
        for what cannot work.
        """
        from django_gomq import checks  # noqa: F401, PLC0415 - registers itself

        site.set_up()
        setting_changed.connect(_note_setting, dispatch_uid="django_gomq")
        site.install_coordinator()


def _note_setting(*, setting: str, **signal: Any) -> None:
    if setting == "GOMQ":
        site.renew()
