from __future__ import annotations

import gc
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from pytest_django import Settings

from django_gomq import Event
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen


def found(message_id: str, **options: Any) -> list[CheckMessage]:
    return [one for one in run_checks(**options) if one.id == message_id]


def test_a_healthy_site_has_nothing_to_say() -> None:
    gc.collect()  # Event classes of other tests

    assert run_checks(tags=["gomq"]) == []


def test_e004_reports_options_that_a_consumer_cannot_have(
    use_site: UseSite, settings: Settings
) -> None:
    listen("page.viewed")
    use_site()
    settings.GOMQ["CONSUMERS"] = {"seen": {"concurrency": 0}}

    errors = found("gomq.E004")

    assert len(errors) == 1
    assert "concurrency is 0" in errors[0].msg
    assert errors[0].hint


@pytest.mark.parametrize(
    ("gomq", "message_id"),
    [
        ({"THREDS": 1}, "gomq.E001"),
        ({"THREADS": 0}, "gomq.E002"),
        ({"ROUTES": {"a.*": "nope"}}, "gomq.E003"),
    ],
)
def test_wrong_settings_are_errors_with_hints(
    use_site: UseSite,
    settings: Settings,
    gomq: dict[str, Any],
    message_id: str,
) -> None:
    use_site()
    settings.GOMQ.update(gomq)

    errors = found(message_id)

    assert len(errors) == 1
    assert errors[0].hint


def test_e005_reports_two_classes_of_one_event_type() -> None:
    class First(Event, type="check.twice"):
        pass

    class Second(Event, type="check.twice"):
        pass

    errors = found("gomq.E005")

    mine = [one for one in errors if "check.twice" in one.msg]
    assert len(mine) == 1
    for cls in (First, Second):
        assert cls.__qualname__ in mine[0].msg
    assert mine[0].hint


def test_w002_warns_where_backpressure_holds_others_back(use_site: UseSite) -> None:
    listen("page.viewed", name="slow", overflow="backpressure")
    listen("page.*", name="neighbour")
    listen("page.viewed", name="off", enabled=False)
    listen("blog.read", name="alone", overflow="backpressure")
    use_site()

    warnings = found("gomq.W002")

    assert [one.obj for one in warnings] == ["slow"]
    assert "'neighbour'" in warnings[0].msg
    assert "off" not in warnings[0].msg
    assert warnings[0].hint


@pytest.mark.parametrize(("metrics", "expected"), [({}, 1), ({"ACCESS": "staff"}, 0)])
def test_w003_warns_of_an_open_metrics_page_before_a_deployment(
    use_site: UseSite, metrics: dict[str, Any], expected: int
) -> None:
    use_site(METRICS=metrics)

    warnings = found("gomq.W003", include_deployment_checks=True)

    assert len(warnings) == expected
    assert found("gomq.W003") == []


@pytest.mark.parametrize(("folder", "expected"), [("/tmp/metrics", 1), ("", 0)])
def test_w004_warns_that_numbers_are_of_one_process(
    monkeypatch: pytest.MonkeyPatch, folder: str, expected: int
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)

    assert len(found("gomq.W004")) == expected


def test_before_the_setup_checks_have_nothing_to_say(own_registry: None) -> None:
    from django_gomq.wiring import brokers

    brokers.set_up(None)

    messages = run_checks(tags=["gomq", "security"], include_deployment_checks=True)

    assert [one for one in messages if (one.id or "").startswith("gomq.W00")] == []
