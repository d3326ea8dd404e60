"""What the app adds to the start of a process; every run is a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from django.core.management import execute_from_command_line

from benchmarks.project import STOCK_APPS, configure

Run = Callable[[], Mapping[str, float]]
_OURS = ("django_gomq",)
_DEPENDENCIES = ("msgspec", "opentelemetry", "typing_extensions")


def check(apps: list[str]) -> Run:
    """``manage.py check`` of a new project with these apps added."""

    def run() -> Mapping[str, float]:
        began = time.process_time()
        configure([*STOCK_APPS, *apps], **_ADMIN)
        execute_from_command_line(["manage.py", "check"])
        spent = time.process_time() - began
        return {"check": spent} if apps else {"check": spent, **_import_client()}

    return run


def _import_client() -> Mapping[str, float]:
    began = time.process_time()
    import prometheus_client  # noqa: F401 - its import is what is measured

    return {"metrics_client": time.process_time() - began}


# What the system checks of Django's own apps ask for.
_ADMIN: Mapping[str, Any] = {
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "STATIC_URL": "static/",
}


def import_all() -> Run:
    """``import django_gomq`` under ``-X importtime``, which slows imports a little."""

    def run() -> Mapping[str, float]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import django_gomq"],
            capture_output=True,
            text=True,
            check=True,
        )
        return _read_times(done.stderr)

    return run


def _read_times(report: str) -> Mapping[str, float]:
    """Sum what each package took for itself, in seconds."""
    own = dependencies = total = 0
    for line in report.splitlines():
        spent, cumulative, name = line.removeprefix("import time:").split("|")
        if not spent.strip().isdigit():
            continue  # the heading
        package = name.strip().partition(".")[0]
        own += int(spent) * (package in _OURS)
        dependencies += int(spent) * (package in _DEPENDENCIES)
        if name.strip() == "django_gomq":
            total = int(cumulative)
    return {
        "import": total / 1e6,
        "import_own": own / 1e6,
        "import_dependencies": dependencies / 1e6,
    }
