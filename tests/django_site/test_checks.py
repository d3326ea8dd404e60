from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connections
from pytest_django import Settings

from django_gomq import Event, consumer
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen


def found(message_id: str, **options: Any) -> list[CheckMessage]:
    return [one for one in run_checks(**options) if one.id == message_id]


def test_a_healthy_site_has_nothing_to_say(own_event_classes: None) -> None:
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


def test_e005_reports_two_classes_of_one_event_type(own_event_classes: None) -> None:
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


def test_e008_reports_a_field_that_json_cannot_carry(own_event_classes: None) -> None:
    class Foreign(Event, type="check.foreign"):
        site: Path

    (error,) = found("gomq.E008")

    assert "field 'site': Path has no JSON form" in error.msg
    assert error.hint
    assert error.obj is Foreign


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


def test_w002_is_silent_where_a_server_keeps_what_finds_no_room(
    use_site: UseSite,
) -> None:
    listen("page.viewed", name="slow", overflow="backpressure")
    listen("page.*", name="neighbour")
    listen("blog.read", name="local", overflow="backpressure")
    listen("blog.*", name="other")
    backend = "django_gomq.backends.redis.RedisBackend"
    durable = {"BACKEND": backend, "OPTIONS": {"url": "redis://127.0.0.1:1"}}
    use_site(BROKERS={"default": {}, "durable": durable}, ROUTES={"page.*": "durable"})

    assert [one.obj for one in found("gomq.W002")] == ["local"]


@pytest.mark.parametrize(("metrics", "expected"), [({}, 1), ({"ACCESS": "staff"}, 0)])
def test_w003_warns_of_an_open_metrics_page_before_a_deployment(
    use_site: UseSite, metrics: dict[str, Any], expected: int
) -> None:
    use_site(METRICS=metrics)

    warnings = found("gomq.W003", include_deployment_checks=True)

    assert len(warnings) == expected
    assert found("gomq.W003") == []


@pytest.fixture
def gunicorn_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of gunicorn in the directory that checks run in."""
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "gunicorn.conf.py"


def test_w004_warns_where_a_scrape_would_see_one_of_several_workers(
    gunicorn_config: Path, use_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_site()
    gunicorn_config.write_text("workers = 3")
    warnings = found("gomq.W004")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/tmp/metrics")
    with_directory = found("gomq.W004")
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    use_site(METRICS={"PORT_RANGE": [9400, 9410]})
    with_ports = found("gomq.W004")
    use_site()
    gunicorn_config.write_text("workers = 1")
    with_one = found("gomq.W004")

    assert [one.msg[:18] for one in warnings] == ["3 worker processes"]
    assert warnings[0].hint
    assert with_directory == with_ports == with_one == []


def test_w005_warns_where_gunicorn_kills_before_the_drain_is_over(
    gunicorn_config: Path, use_site: UseSite
) -> None:
    use_site(DRAIN_TIMEOUT=10)
    without_gunicorn = found("gomq.W005")
    gunicorn_config.write_text("graceful_timeout = 10")
    warnings = found("gomq.W005")
    use_site(DRAIN_TIMEOUT=9)
    shorter = found("gomq.W005")

    assert without_gunicorn == shorter == []
    assert len(warnings) == 1
    assert "10 s (graceful_timeout)" in warnings[0].msg
    assert warnings[0].hint


@pytest.mark.parametrize(("enabled", "expected"), [(True, 1), (False, 0)])
def test_e006_reports_a_directory_where_numbers_cannot_be_shared(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch, enabled: bool, expected: int
) -> None:
    use_site(METRICS={"ENABLED": enabled})
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/no/such/directory")

    errors = found("gomq.E006")

    assert len(errors) == expected
    assert all("'/no/such/directory' is no directory" in one.msg for one in errors)


def test_e006_is_silent_where_numbers_are_shared(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_site()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    assert found("gomq.E006") == []


def test_before_the_setup_checks_have_nothing_to_say(
    own_registry: None, own_event_classes: None
) -> None:
    from django_gomq.site import brokers

    brokers.set_up(None)

    messages = run_checks(tags=["gomq", "security"], include_deployment_checks=True)

    assert [one for one in messages if (one.id or "").startswith("gomq.")] == []


def test_w007_warns_of_a_consumer_that_may_keep_all_threads(use_site: UseSite) -> None:
    async def warm(message: object) -> None: ...

    consumer("page.viewed", name="warms", concurrency=50)(warm)
    listen("page.viewed", name="greedy", concurrency=4)
    listen("page.viewed", name="modest", concurrency=3)
    listen("page.viewed", name="off", concurrency=9, enabled=False)
    use_site(THREADS=4)

    warnings = found("gomq.W007")

    assert [warning.obj for warning in warnings] == ["greedy"]
    assert "'greedy' may keep 4 handler threads" in warnings[0].msg
    assert "THREADS'] above 4" in str(warnings[0].hint)


def test_w007_has_nothing_to_say_of_a_consumer_that_is_alone(use_site: UseSite) -> None:
    listen("page.viewed", concurrency=8)
    use_site(THREADS=8)

    assert found("gomq.W007") == []


def test_w008_warns_where_handlers_and_requests_write_to_sqlite(
    use_site: UseSite,
) -> None:
    listen("page.viewed", name="atomic", atomic="other")
    listen("page.viewed", name="several", concurrency=2)
    use_site()

    warnings = found("gomq.W008")

    told = {one.msg.split("'")[3]: one.msg.split("'")[1] for one in warnings}
    assert told == {"default": "several", "other": "atomic"}
    assert "'transaction_mode': 'IMMEDIATE'" in str(warnings[0].hint)


@pytest.mark.parametrize(
    ("options", "is_told"),
    [
        ({}, False),
        ({"enabled": False, "atomic": True}, False),
        ({"atomic": True}, True),
    ],
)
def test_w008_has_nothing_to_say_where_one_handler_writes_at_a_time(
    use_site: UseSite, options: dict[str, Any], is_told: bool
) -> None:
    listen("page.viewed", **options)
    use_site()

    assert bool(found("gomq.W008")) is is_told


@pytest.mark.parametrize(
    ("setting", "value", "is_told"),
    [
        ("ATOMIC_REQUESTS", True, True),
        ("OPTIONS", {"transaction_mode": "IMMEDIATE"}, False),
        ("OPTIONS", {"transaction_mode": "exclusive"}, False),
        ("OPTIONS", {"transaction_mode": "DEFERRED"}, True),
    ],
)
def test_w008_asks_how_the_transactions_of_requests_begin(
    use_site: UseSite,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: object,
    is_told: bool,
) -> None:
    listen("page.viewed", concurrency=1 if setting == "ATOMIC_REQUESTS" else 2)
    use_site()

    monkeypatch.setitem(connections["default"].settings_dict, setting, value)

    assert bool(found("gomq.W008")) is is_told


def test_w009_warns_of_modules_and_apps_that_nothing_has(use_site: UseSite) -> None:
    use_site(
        AUTODISCOVER=["consumers", "apps", "hanlders", "no.such"],
        AUTODISCOVER_EXCLUDE=["django_gomq", "clinic"],
    )

    warnings = found("gomq.W009")

    assert [one.msg.partition(", and there is no such ")[::2] for one in warnings] == [
        ("GOMQ['AUTODISCOVER'] names 'hanlders'", "module of an app."),
        ("GOMQ['AUTODISCOVER'] names 'no.such'", "module of an app."),
        ("GOMQ['AUTODISCOVER_EXCLUDE'] names 'clinic'", "installed app."),
    ]
    assert all(one.hint for one in warnings)
