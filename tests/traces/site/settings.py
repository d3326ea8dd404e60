from __future__ import annotations

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["django_gomq", "tests.traces.site"]
MIDDLEWARE = ["tests.traces.site.telemetry.TraceRequests"]
ROOT_URLCONF = "tests.traces.site.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
