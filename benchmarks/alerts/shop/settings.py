"""Settings of the shop."""

from __future__ import annotations

SECRET_KEY = "nobody's"  # noqa: S105 - it keeps nothing
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django_gomq", "benchmarks.alerts.shop"]
ROOT_URLCONF = "benchmarks.alerts.shop.urls"
USE_TZ = True
GOMQ = {"EVENTS": ["shop.page.viewed"]}
