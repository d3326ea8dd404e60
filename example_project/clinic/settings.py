"""Settings of the clinic: an ordinary site on SQLite that uses django-gomq."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("CLINIC_DEBUG") == "1"
SECRET_KEY = os.environ.get("CLINIC_SECRET_KEY", "an example keeps no secrets")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_gomq",
    "clinic.records",
    "clinic.statistics",
    "clinic.notifications",
    "clinic.audit",
    "clinic.laboratory",
    "clinic.simulation",
]

GOMQ = {
    # Events without an Event class: named here, so that a misspelt one is found by the
    # checks, and each has its metrics at zero before it happens for the first time.
    "EVENTS": ["page.viewed", "patient.created", "patient.updated", "patient.deleted"],
}

# none | console | otlp; OTLP reads the usual OTEL_EXPORTER_OTLP_* variables.
TRACES = os.environ.get("CLINIC_TRACES", "none")

MIDDLEWARE = [
    # Only with tracing, so that the clinic runs without the OpenTelemetry packages.
    *(["clinic.telemetry.TraceRequests"] if TRACES != "none" else []),
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "clinic.urls"
WSGI_APPLICATION = "clinic.wsgi.application"
ASGI_APPLICATION = "clinic.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "clinic" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": ["django.template.context_processors.request"]
        },
    }
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CLINIC_DATABASE", BASE_DIR / "var" / "clinic.sqlite3"),
        # Request threads and handler threads live long, and opening a file is not free.
        "CONN_MAX_AGE": 60,
        # Many threads write into one file. WAL lets readers pass the writer; IMMEDIATE
        # takes the write lock first, so that a transaction waits for it (`timeout`)
        # instead of failing half-way with "database is locked".
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}

# How bad the laboratory is when its switch says so.
LABORATORY_SLOW_SECONDS = 0.25
LABORATORY_FAILURE_RATE = 0.5

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "gomq": {"()": "django_gomq.observability.logs.ContextFilter"},
    },
    "formatters": {
        "line": {
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s "
            "[trace=%(trace_id)s consumer=%(gomq_consumer)s event=%(gomq_event)s "
            "message=%(gomq_message_id)s attempt=%(gomq_attempt)s]",
        },
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "filters": ["gomq"],
            "formatter": "line",
        },
    },
    "root": {"handlers": ["console"], "level": "INFO"},
    # A wrong body is answered to whoever sent it; it is no news to the clinic.
    "loggers": {"django.request": {"level": "ERROR"}},
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
