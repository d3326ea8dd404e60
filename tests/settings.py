"""The smallest project that django_gomq runs in."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir
from typing import Any

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_gomq",
    "tests.django_site.clinic",
]
ROOT_URLCONF = "tests.django_site.urls"
ALLOWED_HOSTS = ["*"]


def _sqlite_file(name: str) -> dict[str, Any]:
    # A file, as the threads of one in memory lock one another out; its own for each
    # process, as several may test at once.
    path = Path(gettempdir()) / f"gomq-tests-{os.getpid()}-{name}.sqlite3"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {"timeout": 20},
        "TEST": {"NAME": path},
    }


DATABASES = {"default": _sqlite_file("default"), "other": _sqlite_file("other")}
