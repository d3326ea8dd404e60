"""What was measured, when, and on what."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "django-gomq", "Django", "msgspec", "opentelemetry-sdk", "prometheus-client",
    "blinker", "bubus", "celery", "django-tasks", "dramatiq", "faststream", "huey",
    "kombu", "pyee", "psycopg", "PyMySQL", "pgqueuer", "procrastinate",
    "django-tasks-db", "redis", "rq", "streaq", "taskiq", "taskiq-redis",
)  # fmt: skip


def describe(command: str, seconds: float, pythons: Iterable[str]) -> dict[str, Any]:
    """Return what the reader of figures must know of their run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seconds": round(seconds),
        "python": [f"{platform.python_implementation()} {one}" for one in pythons],
        "system": f"{platform.system()} {_release()}, {platform.machine()}",
        "processor": _processor(),
        "processors": _count_processors(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[1],
        "versions": {**{name: _version(name) for name in PACKAGES},
                     "SQLite": sqlite3.sqlite_version},
    }  # fmt: skip


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _release() -> str:
    return ".".join(platform.release().split(".")[:2])


def _count_processors() -> int:
    """Return how many this process may use; all of them where that cannot be told."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    except OSError:
        return platform.processor()  # not Linux
    return found[1] if found else platform.machine()


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text()


def write(about: Mapping[str, Any]) -> str:
    """Return it as a paragraph."""
    minutes, seconds = divmod(about["seconds"], 60)
    versions = ", ".join(f"{name} {one}" for name, one in about["versions"].items())
    load = about.get("load")
    busy = "" if load is None else f" Its load was {load:.1f} over the last 5 minutes."
    return (
        f"Measured on {about['date']} by `{about['command']}` in {minutes} min "
        f"{seconds} s: {', '.join(about['python'])} on {about['system']}, "
        f"{about['processors']} cores ({about['processor']}), "
        f"{about['memory'] / 1024**3:.0f} GiB.{busy} {versions}."
    )
