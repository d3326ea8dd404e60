"""``manage.py check`` reports what keeps a server from starting, with id and hint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS

MANAGE = """
    import sys
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""

SETTINGS = """
    SECRET_KEY = "x"
    INSTALLED_APPS = ["django_gomq", "shop"]
    ROOT_URLCONF = "shop.urls"
    GOMQ = {gomq}
"""

RIGHT = """
    from django_gomq import consumer

    @consumer("order.paid")
    def pay(message): ...
"""

EVENTS = """
    from __future__ import annotations
    from typing import TYPE_CHECKING
    from django_gomq import Event

    if TYPE_CHECKING:
        from datetime import datetime

    class Paid(Event, type="order.paid"):
        at: datetime
"""


def manage(
    folder: Path, *arguments: str, gomq: str = "{}", **files: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of a project that has these settings, and files in its app."""
    texts = {"consumers": RIGHT, "urls": "urlpatterns = []", "__init__": "", **files}
    (folder / "shop").mkdir()
    (folder / "manage.py").write_text(dedent(MANAGE))
    (folder / "checked.py").write_text(dedent(SETTINGS).format(gomq=gomq))
    for name, text in texts.items():
        (folder / "shop" / f"{name}.py").write_text(dedent(text))
    site = {
        "DJANGO_SETTINGS_MODULE": "checked",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
    }
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=folder,
        env=environment(**site),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )


MISTAKES: dict[str, tuple[dict[str, str], str, str]] = {
    "unknown key": ({"gomq": "{'THREDS': 1}"}, "gomq.E001", "'THREDS'] does not exist"),
    "wrong value": ({"gomq": "{'THREADS': 0}"}, "gomq.E002", "GOMQ['THREADS'] is 0"),
    "unknown route": (
        {"gomq": "{'ROUTES': {'a.*': 'nope'}}"},
        "gomq.E003",
        "names no broker: 'nope'",
    ),
    "backend": (
        {"gomq": "{'BROKERS': {'default': {'BACKEND': 'nowhere.Backend'}}}"},
        "gomq.E004",
        "'nowhere.Backend' cannot be imported",
    ),
    "unknown consumer": (
        {"gomq": "{'CONSUMERS': {'shop.pya': {'capacity': 1}}}"},
        "gomq.E004",
        "GOMQ['CONSUMERS'] names 'shop.pya'",
    ),
    "wrong option": (
        {"gomq": "{'CONSUMERS': {'shop.pay': {'capacity': 0}}}"},
        "gomq.E004",
        "GOMQ['CONSUMERS']: Consumer 'shop.pay': capacity is 0",
    ),
    "missing promise": (
        {"gomq": "{'CONSUMERS': {'shop.pay': {'idempotent': True}}}"},
        "gomq.E004",
        "Consumer 'shop.pay': idempotent needs a broker that notes",
    ),
    "wrong handler": (
        {"consumers": RIGHT.replace("message", "")},
        "gomq.E007",
        "pay() takes no message",
    ),
    "missing module": (
        {"consumers": f"import sdk_that_is_missing\n{dedent(RIGHT)}"},
        "gomq.E007",
        "No module named 'sdk_that_is_missing'",
    ),
    "event class": (
        {"events": EVENTS, "models": "from . import events"},
        "gomq.E008",
        "Event class Paid (shop.events): the type of field 'at' cannot",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_an_error_with_id_and_hint_and_no_traceback(
    tmp_path: Path, mistake: str
) -> None:
    project, message_id, text = MISTAKES[mistake]

    done = manage(tmp_path, "check", **project)

    assert done.returncode == 1
    assert f"({message_id}) " in done.stderr
    assert text in done.stderr
    assert "HINT: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 issue" in done.stderr


@pytest.mark.parametrize("mistake", ["unknown key", "missing module"])
def test_what_runs_the_site_does_not_start_with_a_mistake(
    tmp_path: Path, mistake: str
) -> None:
    project, _, text = MISTAKES[mistake]

    done = manage(tmp_path, "shell", "-c", "print('started')", **project)

    assert done.returncode == 1
    assert "started" not in done.stdout
    assert text in done.stderr
    assert "ConfigurationError" in done.stderr or "ConsumersError" in done.stderr


def test_what_runs_the_site_logs_an_event_class_that_cannot_be_emitted(
    tmp_path: Path,
) -> None:
    project, _, text = MISTAKES["event class"]

    done = manage(tmp_path, "shell", "-c", "print('started')", **project)

    assert done.returncode == 0
    assert "started" in done.stdout
    assert text in done.stderr


def test_the_listing_says_why_there_is_nothing_to_list(tmp_path: Path) -> None:
    project, _, text = MISTAKES["missing module"]

    done = manage(tmp_path, "gomq", "list", **project)

    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: shop.consumers of app 'shop'")
    assert text in done.stderr


def test_a_broker_that_is_asked_for_while_apps_are_checked_says_why_there_is_none(
    tmp_path: Path,
) -> None:
    apps = """
        from django.apps import AppConfig

        class ShopConfig(AppConfig):
            name = "shop"

            def ready(self):
                from django_gomq import get_broker
                get_broker()
    """

    done = manage(tmp_path, "check", gomq="{'THREDS': 1}", apps=apps)

    assert "GOMQ['THREDS'] does not exist" in done.stderr
