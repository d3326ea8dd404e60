"""A site whose events wait in a SQLite file, in a folder that the environment names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.settings import DEFAULT_AUTO_FIELD, SECRET_KEY, USE_TZ

__all__ = ["DEFAULT_AUTO_FIELD", "SECRET_KEY", "USE_TZ"]

FOLDER = Path(os.environ["DURABLE_FOLDER"])
DEBUG = os.environ.get("DURABLE_DEBUG") == "1"
INSTALLED_APPS = [
    "django_gomq",
    "tests.management.durable.jobs",
    *os.environ.get("DURABLE_APPS", "").split(),
]
ROOT_URLCONF = "tests.management.durable.urls"
ALLOWED_HOSTS = ["*"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "site.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;",
        },
    }
}
if "DURABLE_DATABASE" in os.environ:
    DATABASES = {"default": json.loads(os.environ["DURABLE_DATABASE"])}
DURABLE = {"BACKEND": "django_gomq.backends.database.DatabaseBackend"}
GOMQ: dict[str, Any] = {
    "BROKERS": {"default": DURABLE, "local": {}},
    "ROUTES": {"local.*": "local"},
    **json.loads(os.environ.get("DURABLE_GOMQ", "{}")),
}
