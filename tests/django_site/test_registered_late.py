"""Consumers that are registered after ready(), as in a view or a shell, run too."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from django_gomq import ConfigurationError, consumer, emit
from django_gomq.bus.registry import registry
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, listen
from tests.django_site.programs import ROOT
from tests.django_site.waiting import SECONDS


def test_a_consumer_of_a_running_site_gets_what_is_emitted_from_then_on(
    live_site: UseSite,
) -> None:
    first = listen("page.viewed", name="first")
    live_site()
    emit("page.viewed", {"n": 1})
    first.wait_for(1)

    late = listen("page.viewed", name="late")
    emit("page.viewed", {"n": 2})

    late.wait_for(1)
    assert late.data == [{"n": 2}]
    first.wait_for(2)


def test_a_type_that_nobody_consumed_is_consumed_by_a_late_one(
    live_site: UseSite,
) -> None:
    live_site()
    assert emit("page.viewed").reason == "no_consumer"

    late = listen("page.*", name="late")

    assert emit("page.viewed")
    late.wait_for(1)


def test_a_late_consumer_is_one_of_the_site_with_its_broker(
    live_site: UseSite,
) -> None:
    site = live_site(
        BROKERS={"default": {}, "other": {}}, ROUTES={"billing.*": "other"}
    )

    listen("billing.paid", name="late")

    assert [one.name for one in site.consumers] == ["late"]
    assert [one.name for one in site.brokers["other"].consumers] == ["late"]
    assert site.brokers["default"].consumers == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"atomic": "nowhere"}, "atomic='nowhere' names no database"),
        ({"ordered_by_key": True, "name": "taken"}, "Two consumers are named 'taken'"),
    ],
)
def test_a_late_consumer_that_cannot_run_is_refused_and_can_be_corrected(
    live_site: UseSite, options: dict[str, Any], text: str
) -> None:
    listen("page.viewed", name="taken")
    site = live_site()

    with pytest.raises(ConfigurationError, match=text):
        listen("page.viewed", **{"name": "late", **options})
    late = listen("page.viewed", name="late")

    assert [one.name for one in site.consumers] == ["taken", "late"]
    assert emit("page.viewed")
    late.wait_for(1)


def test_a_consumer_that_is_loaded_again_is_told_to_run_on(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    consumer("page.viewed", name="seen")(seen)
    live_site()

    with caplog.at_level(logging.WARNING):
        consumer("page.viewed", name="seen")(seen)

    (line,) = [one for one in caplog.records if one.name == "gomq.registry"]
    assert line.getMessage().startswith("Consumer seen was registered again")
    emit("page.viewed")
    seen.wait_for(1)


def test_before_a_site_is_made_nothing_is_told(own_registry: None) -> None:
    from django_gomq import site
    from django_gomq.site import brokers

    site.set_up()
    brokers.set_up(None)

    listen("page.viewed", name="late")

    assert [one.name for one in registry.consumers()] == ["late"]


HANDLERS = """
from django_gomq import consumer

seen = []

@consumer("order.paid")
def note(message):
    seen.append(message.type)
"""

PROGRAM = """
import time
import django
from django.conf import settings

apps = ["shop.apps.ShopConfig", "django_gomq"]
settings.configure(INSTALLED_APPS=apps[::{step}], SECRET_KEY="x")
django.setup()
from django_gomq import emit, get_broker
from shop import handlers

assert emit("order.paid")
get_broker().close(timeout=60)
assert handlers.seen == ["order.paid"], handlers.seen
"""


@pytest.mark.parametrize("step", [1, -1], ids=["above", "below"])
def test_consumers_that_an_app_imports_in_ready_run_wherever_it_stands(
    tmp_path: Path, step: int
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").touch()
    (shop / "handlers.py").write_text(HANDLERS)
    (shop / "apps.py").write_text(
        "from django.apps import AppConfig\n"
        "class ShopConfig(AppConfig):\n"
        "    name = 'shop'\n"
        "    def ready(self):\n"
        "        from shop import handlers\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(step=step)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )

    assert done.returncode == 0, done.stderr
