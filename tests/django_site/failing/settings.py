from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ["FAILING_FOLDER"])
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django_gomq", "tests.django_site.failing"]
ROOT_URLCONF = "tests.django_site.failing.urls"
ALLOWED_HOSTS = ["*"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "site.sqlite3",
        "OPTIONS": {"timeout": 60},
    }
}
