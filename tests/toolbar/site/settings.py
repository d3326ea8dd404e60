"""A site with django-debug-toolbar, which shows one panel."""

from __future__ import annotations

import os
from pathlib import Path

SECRET_KEY = "only for tests"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INTERNAL_IPS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "tests.toolbar.site.urls"
INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "debug_toolbar",
    "django_gomq",
    "tests.toolbar.site",
]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
DEBUG_TOOLBAR_PANELS = ["django_gomq.toolbar.EventsPanel"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ["SITE_FOLDER"]) / "db.sqlite3",
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
GOMQ = {
    "BROKERS": {
        "default": {},
        "durable": {"BACKEND": "django_gomq.backends.database.DatabaseBackend"},
    },
    "ROUTES": {"stored.*": "durable"},
}
