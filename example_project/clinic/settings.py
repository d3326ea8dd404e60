"""Settings of the clinic: an ordinary site on SQLite that uses django-gomq."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("CLINIC_DEBUG") == "1"
SECRET_KEY = os.environ.get("CLINIC_SECRET_KEY", "an example keeps no secrets")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    # The live page of the bus is for staff: users, their log-in, and what draws it.
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_gomq",
    "clinic.records",
    "clinic.statistics",
    "clinic.notifications",
    "clinic.audit",
    "clinic.laboratory",
    "clinic.simulation",
]

# Where events wait for their consumers: all of them in the memory of the server; or
# some where a `manage.py gomq worker` handles them: what happens to patients in the
# database, with their rows; or that and every saved record in Redis, or Valkey.
BACKEND = os.environ.get("CLINIC_BACKEND", "memory")

_DURABLE: dict[str, dict[str, Any]] = {
    "memory": {},
    "database": {
        "BROKERS": {
            "durable": {"BACKEND": "django_gomq.backends.database.DatabaseBackend"}
        },
        "ROUTES": {"patient.*": "durable"},
    },
    "redis": {
        "BROKERS": {
            "durable": {
                "BACKEND": "django_gomq.backends.redis.RedisBackend",
                "OPTIONS": {
                    "url": os.environ.get(
                        "CLINIC_REDIS_URL", "redis://127.0.0.1:6379/0"
                    ),
                    # Sites that share a server need one each.
                    "prefix": os.environ.get("CLINIC_REDIS_PREFIX", "clinic"),
                    # Or "default": rows beside the patient's, until a worker forwards
                    # them.
                    "outbox": os.environ.get("CLINIC_REDIS_OUTBOX"),
                },
            }
        },
        "ROUTES": {"patient.*": "durable", "health.*": "durable"},
    },
}
if BACKEND not in _DURABLE:
    raise ImproperlyConfigured(
        f"CLINIC_BACKEND is {BACKEND!r}: choose one of {', '.join(_DURABLE)}."
    )

GOMQ: dict[str, Any] = {
    # Events without an Event class: named here, so that a misspelt one is found by the
    # checks, and each has its metrics at zero before it happens for the first time.
    "EVENTS": ["page.viewed", "patient.created", "patient.updated", "patient.deleted"],
    **_DURABLE[BACKEND],
    "BROKERS": {"default": {}, **_DURABLE[BACKEND].get("BROKERS", {})},
    # What `manage.py gomq dead-letters show --payload` may show of an event's data.
    "DEAD_LETTERS": {"REDACT": "clinic.privacy.redact"},
}

# none | console | otlp; OTLP reads the usual OTEL_EXPORTER_OTLP_* variables.
TRACES = os.environ.get("CLINIC_TRACES", "none")

MIDDLEWARE = [
    # Only with tracing, so that the clinic runs without the OpenTelemetry packages.
    *(["clinic.telemetry.TraceRequests"] if TRACES != "none" else []),
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "clinic.urls"
WSGI_APPLICATION = "clinic.wsgi.application"
ASGI_APPLICATION = "clinic.asgi.application"
LOGIN_URL = "admin:login"
STATIC_URL = "static/"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "clinic" / "templates"],
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
