"""A site with admin, under a strict policy for content, shaped by its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["CLINIC_FOLDER"])
HAS_UNFOLD = "CLINIC_UNFOLD" in os.environ
IS_DURABLE = "CLINIC_DURABLE" in os.environ

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.live.clinic.urls"
INSTALLED_APPS = [
    *(["unfold"] if HAS_UNFOLD else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_gomq",
    "tests.live.clinic",
]
MIDDLEWARE = [
    *([] if HAS_UNFOLD else ["tests.live.clinic.policy.strict_policy"]),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "db.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STATIC_URL = "/static/"
LOGIN_URL = "/admin/login/"
GOMQ: dict[str, Any] = {
    "EVENTS": ["report.exported"],
    "DEAD_LETTERS": {"REDACT": "tests.live.clinic.consumers.redact"},
}
if IS_DURABLE:
    GOMQ["BROKERS"] = {
        "default": {
            "BACKEND": "django_gomq.backends.database.DatabaseBackend",
            "RUN": "here",
        }
    }
