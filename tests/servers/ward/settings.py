"""The ward's settings, shaped by the environment of the server that runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["WARD_FOLDER"])

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.servers.ward.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "tests.servers.ward"]
if "WARD_WITHOUT_GOMQ" not in os.environ:
    INSTALLED_APPS.append("django_gomq")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "db.sqlite3",
        "OPTIONS": {
            "timeout": 60,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}

GOMQ: dict[str, Any] = {}
if "WARD_DRAIN_TIMEOUT" in os.environ:
    GOMQ["DRAIN_TIMEOUT"] = float(os.environ["WARD_DRAIN_TIMEOUT"])
if "WARD_CAPACITY" in os.environ:
    capacity = int(os.environ["WARD_CAPACITY"])
    GOMQ["BROKERS"] = {"default": {"OPTIONS": {"capacity": capacity}}}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "ward %(process)d %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    # Not at the root: Celery takes that one over.
    "loggers": {"gomq": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}
