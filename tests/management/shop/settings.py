"""A shop with two brokers, and with a few mistakes for ``gomq list`` to find."""

from __future__ import annotations

from tests.settings import DATABASES, DEFAULT_AUTO_FIELD, SECRET_KEY, USE_TZ

__all__ = ["DATABASES", "DEFAULT_AUTO_FIELD", "SECRET_KEY", "USE_TZ"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_gomq",
    "tests.management.shop.orders",
]
ROOT_URLCONF = "tests.management.shop.urls"
ALLOWED_HOSTS = ["*"]
GOMQ = {
    "BROKERS": {
        "default": {},
        "billing": {"RUN": "never", "OPTIONS": {"capacity": 50}},
    },
    "ROUTES": {"billing.*": "billing", "billing.draft.saved": "default"},
    "CONSUMERS": {"orders.off": {"enabled": False}},
    "EVENTS": ["page.viewed"],
}
