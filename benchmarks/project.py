"""A Django project in one call, with this app or without; it measures nothing."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import include, path

# What `django-admin startproject` installs; what the app adds is measured on top.
STOCK_APPS = (
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
)


def set_up(gomq: Mapping[str, Any] | None = None) -> None:
    """Configure Django with django_gomq and an SQLite file; tracing is off.

    As a server does, which makes an application: a script would wait for room.
    """
    configure(["django_gomq"], gomq={"TRACING": {"ENABLED": False}, **(gomq or {})})
    get_wsgi_application()


def configure(
    apps: Sequence[str],
    *,
    gomq: Mapping[str, Any] | None = None,
    databases: Mapping[str, Any] | None = None,
    **others: Any,
) -> None:
    """Configure Django with these apps, on an SQLite file; do not set it up yet."""
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="gomq-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=list(apps),
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES=databases
        or {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(folder / "bench.sqlite3"),
            }
        },
        GOMQ=dict(gomq or {}),
        **others,
    )


def __getattr__(name: str) -> Any:
    """Make ``urlpatterns`` when Django asks: most cases serve no page."""
    if name == "urlpatterns":
        if "django_gomq" not in settings.INSTALLED_APPS:
            return []
        return [path("gomq/", include("django_gomq.urls"))]
    raise AttributeError(name)
