"""A Django project in one call, for benchmarks; it measures nothing."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings


def set_up(gomq: dict[str, Any] | None = None) -> None:
    """Configure Django with django_gomq and an SQLite file; metrics on, tracing off."""
    folder = Path(tempfile.mkdtemp(prefix="gomq-bench-"))
    logging.disable(logging.CRITICAL)
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["django_gomq"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(folder / "bench.sqlite3"),
            }
        },
        GOMQ={"TRACING": {"ENABLED": False}, **(gomq or {})},
    )
    django.setup()
