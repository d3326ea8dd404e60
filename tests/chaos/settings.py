"""The site whose workers are killed; the environment says on what."""

from __future__ import annotations

import json
import os

from tests.django_site.mariadb import use_pymysql

_DATABASE = json.loads(os.environ["GOMQ_CHAOS_DATABASE"])
if _DATABASE["ENGINE"].endswith("mysql"):
    use_pymysql()

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_gomq", "tests.chaos"]
DATABASES = {"default": _DATABASE}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(process)d %(name)s %(levelname)s %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
# Longer than a busy machine may hold a process up.
_LEASE = float(os.environ["GOMQ_CHAOS_LEASE"])
_URL = os.environ["GOMQ_CHAOS_REDIS"]
if _URL:
    _BROKER = {
        "BACKEND": "django_gomq.backends.redis.RedisBackend",
        # What was refused while the server was away is told by the receipt.
        "ON_REFUSED": "log",
        "OPTIONS": {"url": _URL, "lease": _LEASE},
    }
else:
    _BROKER = {
        "BACKEND": "django_gomq.backends.database.DatabaseBackend",
        "OPTIONS": {"lease": _LEASE},
    }
# Small, so that a kill leaves no more behind than can be handled one by one.
_CONSUMERS: dict[str, dict[str, object]] = {
    f"chaos.{name}": {"capacity": 40}
    for name in ("plain", "ordered", "batch", "flaky", "asynchronous")
}
if _URL:
    _CONSUMERS["chaos.ordered"]["ordered_by_key"] = False  # not promised there
GOMQ = {
    "BROKERS": {"default": _BROKER},
    "CONSUMERS": _CONSUMERS,
    "EVENTS": ["chaos.happened"],
    "THREADS": 4,
}
