"""An emit where django_gomq is not set up yet, or not installed at all, is told."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from django_gomq import NotRunningError, aemit, emit, emit_many
from django_gomq.site import brokers
from tests.django_site.clinic.events import RecordRead
from tests.django_site.programs import ROOT, run_program
from tests.django_site.waiting import SECONDS

EMITS: dict[str, Callable[..., object]] = {
    "emit": emit,
    "emit_many": lambda event, **options: emit_many([event], **options)[0],
    "aemit": lambda event, **options: asyncio.run(aemit(event, **options)),
}


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "gomq.emit"]


@pytest.fixture
def not_ready(own_registry: None) -> None:
    """As before ready(): the app is installed, and there is no site."""
    brokers.set_up(None)


@pytest.mark.parametrize("how", EMITS)
def test_an_emit_that_comes_too_early_is_refused_and_told_once_per_type(
    not_ready: None, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    event = RecordRead(record_id=1)

    receipts = [EMITS[how](event), EMITS[how](event)]

    assert [one.reason for one in receipts] == ["not_running"] * 2  # type: ignore[attr-defined]
    (line,) = lines_of(caplog)
    assert line.startswith("Event clinic.record.read was emitted too early, at import")
    assert "move 'django_gomq' up in INSTALLED_APPS" in line


@pytest.mark.parametrize("how", EMITS)
def test_a_strict_emit_that_comes_too_early_raises(not_ready: None, how: str) -> None:
    with pytest.raises(NotRunningError, match="record.read was emitted too early") as e:
        EMITS[how](RecordRead(record_id=1), strict=True)

    assert e.value.event == "clinic.record.read"


def test_where_a_command_reports_why_there_is_no_site_an_emit_says_nothing(
    own_registry: None, caplog: pytest.LogCaptureFixture
) -> None:
    from django_gomq import ConfigurationError

    brokers.set_up(None, failure=ConfigurationError("GOMQ is wrong"))

    assert emit("page.viewed").reason == "not_running"
    assert lines_of(caplog) == []


@pytest.mark.parametrize("strict", [None, True])
def test_without_the_app_it_is_told_once_for_all(
    without_the_app: None, caplog: pytest.LogCaptureFixture, strict: bool | None
) -> None:
    with caplog.at_level(logging.DEBUG):
        receipts = [emit(name, strict=strict) for name in ("a.b", "a.b", "a.c")]

    assert [one.reason for one in receipts] == ["not_installed"] * 3
    (line,) = [one for one in caplog.records if one.name == "gomq.emit"]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "Event a.b went nowhere, as all others will: 'django_gomq' is not in "
        "INSTALLED_APPS"
    )


PROGRAM = """
import logging
import django
from django.conf import settings

logging.basicConfig(level="WARNING")
settings.configure(
    INSTALLED_APPS=["shop", "django_gomq"], SECRET_KEY="x", LOGGING_CONFIG=None
)
{emit}
django.setup()
"""
APPS = """
from django.apps import AppConfig
{at_import}
class ShopConfig(AppConfig):
    name = "shop"
    def ready(self):
        {in_ready}
"""
EMIT = "from django_gomq import emit; emit('shop.started')"


@pytest.mark.parametrize("place", ["emit", "at_import", "in_ready"])
def test_wherever_it_is_too_early_that_is_told(tmp_path: Path, place: str) -> None:
    code = {"emit": "", "at_import": "", "in_ready": "pass", place: EMIT}
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "apps.py").write_text(APPS.format(**code))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(**code)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.count("WARNING:gomq.emit:Event shop.started was emitted too") == 1
    )


def test_without_any_settings_it_is_not_installed() -> None:
    done = run_program(EMIT.replace("emit('", "print(emit('") + ")", **NO_SETTINGS)

    assert "reason='not_installed'" in done.stdout, done.stderr


NO_SETTINGS = {"DJANGO_SETTINGS_MODULE": ""}


URLS = """
import django
from django.conf import settings

settings.configure(INSTALLED_APPS=[], SECRET_KEY="x")
django.setup()
import django_gomq.urls
"""


def test_the_urls_of_an_app_that_is_not_installed_say_so() -> None:
    done = run_program(URLS)

    assert done.returncode == 1
    told = "ConfigurationError: django_gomq.urls is included, and 'django_gomq' is not"
    assert told in done.stderr
