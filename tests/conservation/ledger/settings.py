"""The ledger's settings; its database is a PostgreSQL given by the environment."""

from __future__ import annotations

import os
from typing import Any

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_gomq", "tests.conservation.ledger"]
ROOT_URLCONF = "tests.conservation.ledger.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": os.environ.get("LEDGER_PORT", ""),
        "USER": "gomq",
        "NAME": "postgres",
    }
}
GOMQ: dict[str, Any] = {"THREADS": 4}
if os.environ.get("LEDGER_SPILLS"):
    others = ("steady", "slow", "flaky")
    GOMQ["CONSUMERS"] = {name: {"enabled": False} for name in others}
    GOMQ["CONSUMERS"]["spilling"] = {"enabled": True}
    GOMQ["DRAIN_TIMEOUT"] = 0.1  # so that workers end with something left
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(name)s %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"gomq": {"handlers": ["console"], "level": "INFO"}},
}
