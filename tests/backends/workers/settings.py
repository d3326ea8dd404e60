"""Settings of workers; the environment says where their database is."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from tests.backends.workers import THREADS
from tests.django_site.mariadb import use_pymysql
from tests.settings import DEFAULT_AUTO_FIELD, SECRET_KEY, USE_TZ

__all__ = ["DEFAULT_AUTO_FIELD", "SECRET_KEY", "USE_TZ"]

_DATABASE: Final[dict[str, Any]] = json.loads(os.environ["WORKERS_DATABASE"])
if _DATABASE["ENGINE"].endswith("mysql"):
    use_pymysql()

INSTALLED_APPS = ["django_gomq", "tests.backends.workers"]
DATABASES = {"default": _DATABASE}
GOMQ = {
    "BROKERS": {
        "default": {
            "BACKEND": "django_gomq.backends.database.DatabaseBackend",
            "OPTIONS": {"lease": float(os.environ["WORKERS_LEASE"])},
        }
    },
    "EVENTS": ["work.done", "work.once"],
    "THREADS": THREADS,
}
