from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import Error, run_checks
from pytest_django import Settings

from django_gomq import ConfigurationError
from django_gomq.backends.memory.backend import MemoryBackend
from django_gomq.conf import check, load
from tests.django_site.conftest import UseSite

WRONG: list[tuple[Any, str, str]] = [
    ([], "gomq.E001", "GOMQ"),
    ("x", "gomq.E001", "GOMQ"),
    ({"THREDS": 8}, "gomq.E001", "THREDS"),
    ({1: 8}, "gomq.E001", "1"),
    ({"THREADS": 0}, "gomq.E002", "THREADS"),
    ({"THREADS": 10**9}, "gomq.E002", "THREADS"),
    ({"THREADS": 1.5}, "gomq.E002", "THREADS"),
    ({"THREADS": True}, "gomq.E002", "THREADS"),
    ({"MAX_BODY_BYTES": "1k"}, "gomq.E002", "MAX_BODY_BYTES"),
    ({"DRAIN_TIMEOUT": -1}, "gomq.E002", "DRAIN_TIMEOUT"),
    ({"DRAIN_TIMEOUT": 1e12}, "gomq.E002", "DRAIN_TIMEOUT"),
    ({"DRAIN_TIMEOUT": "10"}, "gomq.E002", "DRAIN_TIMEOUT"),
    ({"DRAIN_TIMEOUT": math.nan}, "gomq.E002", "DRAIN_TIMEOUT"),
    ({"FLUSH_TIMEOUT": None}, "gomq.E002", "FLUSH_TIMEOUT"),
    ({"FLUSH_TIMEOUT": math.inf}, "gomq.E002", "FLUSH_TIMEOUT"),
    ({"EMIT_ON_COMMIT": 1}, "gomq.E002", "EMIT_ON_COMMIT"),
    ({"EMIT_USING": ["default"]}, "gomq.E002", "EMIT_USING"),
    ({"EMIT_USING": "nope"}, "gomq.E003", "'nope'"),
    ({"SOURCE": "my site\n"}, "gomq.E002", "SOURCE"),
    ({"SOURCE": "x" * 501}, "gomq.E002", "SOURCE"),
    ({"SOURCE": "\ud800"}, "gomq.E002", "SOURCE"),
    ({"NO_CONSUMER": "log"}, "gomq.E002", "NO_CONSUMER"),
    ({"NO_CONSUMER": ["warn"]}, "gomq.E002", "NO_CONSUMER"),
    ({"EVENTS": "page.viewed"}, "gomq.E002", "EVENTS"),
    ({"EVENTS": ["Page Viewed"]}, "gomq.E002", "EVENTS"),
    ({"EVENTS": [1]}, "gomq.E002", "EVENTS"),
    ({"AUTODISCOVER": "consumers"}, "gomq.E002", "AUTODISCOVER"),
    ({"IDLE_COMMANDS": "prepare"}, "gomq.E002", "IDLE_COMMANDS"),
    ({"AUTODISCOVER_EXCLUDE": 1}, "gomq.E002", "AUTODISCOVER_EXCLUDE"),
    ({"BROKERS": []}, "gomq.E002", "BROKERS"),
    ({"BROKERS": {}}, "gomq.E003", "default"),
    ({"BROKERS": {"default": []}}, "gomq.E002", "default"),
    ({"BROKERS": {"default": {"BAKEND": ""}}}, "gomq.E001", "BAKEND"),
    ({"BROKERS": {"default": {"BACKEND": 1}}}, "gomq.E002", "BACKEND"),
    ({"BROKERS": {"default": {"RUN": "hier"}}}, "gomq.E002", "RUN"),
    ({"BROKERS": {"default": {"ON_REFUSED": 1}}}, "gomq.E002", "ON_REFUSED"),
    ({"BROKERS": {"default": {"OPTIONS": []}}}, "gomq.E002", "OPTIONS"),
    ({"ROUTES": []}, "gomq.E002", "ROUTES"),
    ({"ROUTES": {"a.*": "nope"}}, "gomq.E003", "nope"),
    ({"ROUTES": {"a*": "default"}}, "gomq.E003", "ROUTES"),
    ({"ROUTES": {"a.*": ["default"]}}, "gomq.E003", "ROUTES"),
    ({"ROUTES": {5: "default"}}, "gomq.E002", "ROUTES"),
    ({"CONSUMERS": []}, "gomq.E002", "CONSUMERS"),
    ({"CONSUMERS": {"a": 1}}, "gomq.E002", "'a'"),
    ({"CONSUMERS": {"a": {"speed": 1, 2: 3}}}, "gomq.E001", "speed"),
    ({"METRICS": True}, "gomq.E002", "METRICS"),
    ({"METRICS": {"ACCES": "open"}}, "gomq.E001", "ACCES"),
    ({"METRICS": {"ACCESS": "all"}}, "gomq.E002", "ACCESS"),
    ({"METRICS": {"ACCESS": "token"}}, "gomq.E002", "TOKEN"),
    ({"METRICS": {"TOKEN": " padded"}}, "gomq.E002", "TOKEN"),
    ({"METRICS": {"TOKEN": "from a file\n"}}, "gomq.E002", "TOKEN"),
    ({"METRICS": {"TOKEN": "\ud800"}}, "gomq.E002", "TOKEN"),
    ({"METRICS": {"ENABLED": "yes"}}, "gomq.E002", "ENABLED"),
    ({"METRICS": {"WAIT_BUCKETS": []}}, "gomq.E002", "WAIT_BUCKETS"),
    ({"METRICS": {"UNDECLARED_EVENTS": 201}}, "gomq.E002", "UNDECLARED_EVENTS"),
    ({"METRICS": {"UNDECLARED_EVENTS": -1}}, "gomq.E002", "UNDECLARED_EVENTS"),
    ({"METRICS": {"UNDECLARED_EVENTS": True}}, "gomq.E002", "UNDECLARED_EVENTS"),
    ({"METRICS": {"WAIT_BUCKETS": [2, 1]}}, "gomq.E002", "WAIT_BUCKETS"),
    ({"METRICS": {"HANDLER_BUCKETS": [0, 1]}}, "gomq.E002", "HANDLER_BUCKETS"),
    ({"METRICS": {"PORT_RANGE": 9464}}, "gomq.E002", "PORT_RANGE"),
    ({"METRICS": {"PORT_RANGE": [9464]}}, "gomq.E002", "PORT_RANGE"),
    ({"METRICS": {"PORT_RANGE": [9470, 9464]}}, "gomq.E002", "PORT_RANGE"),
    ({"METRICS": {"PORT_RANGE": [9464, 65_536]}}, "gomq.E002", "PORT_RANGE"),
    ({"METRICS": {"PORT_RANGE": ["9464", "9470"]}}, "gomq.E002", "PORT_RANGE"),
    ({"METRICS": {"WAIT_BUCKETS": [1, 10**400]}}, "gomq.E002", "WAIT_BUCKETS"),
    ({"METRICS": {"PORT_ADDRESS": ""}}, "gomq.E002", "PORT_ADDRESS"),
    ({"METRICS": {"PORT_ADDRESS": "http://0.0.0.0"}}, "gomq.E002", "PORT_ADDRESS"),
    ({"METRICS": {"PORT_ADDRESS": None}}, "gomq.E002", "PORT_ADDRESS"),
    (
        {"METRICS": {"PORT_RANGE": [9464, 9470], "ACCESS": "staff"}},
        "gomq.E002",
        "PORT_RANGE",
    ),
    ({"TRACING": []}, "gomq.E002", "TRACING"),
    ({"TRACING": {"ENABLED": "on"}}, "gomq.E002", "ENABLED"),
    ({"TRACING": {"CONSUMER": "child"}}, "gomq.E002", "CONSUMER"),
    ({"DEAD_LETTERS": {"KEEP": 0}}, "gomq.E002", "KEEP"),
    ({"DEAD_LETTERS": {"KEPT": 1}}, "gomq.E001", "KEPT"),
    ({"DEAD_LETTERS": {"KEEP_STORED": 0}}, "gomq.E002", "KEEP_STORED"),
    ({"DEAD_LETTERS": {"USING": ["default"]}}, "gomq.E002", "USING"),
    ({"DEAD_LETTERS": {"USING": "nope"}}, "gomq.E003", "'nope'"),
    ({"DEAD_LETTERS": {"REDACT": 1}}, "gomq.E002", "REDACT"),
    ({"DEAD_LETTERS": {"REDACT": "nowhere.redact"}}, "gomq.E002", "nowhere"),
    ({"DEAD_LETTERS": {"REDACT": "django.VERSION"}}, "gomq.E002", "django.VERSION"),
]


@pytest.mark.parametrize(("raw", "problem_id", "named"), WRONG)
def test_a_wrong_setting_is_a_problem_with_an_id_and_a_hint(
    raw: Any, problem_id: str, named: str
) -> None:
    problems = list(check(raw))

    matching = [one for one in problems if one.id == problem_id]
    assert matching
    assert any(named in one.text for one in matching)
    assert all(one.hint for one in problems)


@pytest.mark.parametrize(("raw", "problem_id", "named"), WRONG)
def test_a_wrong_setting_is_a_configuration_error_where_it_is_loaded(
    raw: Any, problem_id: str, named: str
) -> None:
    with pytest.raises(ConfigurationError, match="GOMQ is wrong"):
        load(raw)


def test_one_error_names_every_problem() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"THREADS": 0, "SPEED": 1, "ROUTES": {"a.*": "nope"}})

    assert len(str(caught.value).splitlines()) == 4
    for named in ("THREADS", "SPEED", "nope"):
        assert named in str(caught.value)


SECRET = "s3cr3t-t0ken"


@pytest.mark.parametrize(
    "raw",
    [
        {"METRICS": {"TOKEN": [SECRET]}},
        {"METRICS": {"TOKEN": SECRET, 5: 1}},
        {"METRICS": [SECRET]},
        {"METRICS": {"TOKEN": SECRET, "ACCESS": "all"}},
        {"BROKERS": {"default": {"OPTIONS": f"redis://:{SECRET}@host"}}},
        {"BROKERS": {"default": f"redis://:{SECRET}@host"}},
        {"BROKERS": f"redis://:{SECRET}@host"},
        {"BROKERS": {"default": {"OPTIONS": {5: SECRET}}}},
        [("METRICS", {"TOKEN": SECRET})],
    ],
)
def test_a_secret_is_in_no_problem(raw: Any) -> None:
    problems = list(check(raw))

    assert problems
    assert SECRET not in repr(problems)


def test_a_token_is_not_in_the_repr_of_the_values() -> None:
    config = load({"METRICS": {"ACCESS": "token", "TOKEN": SECRET}})

    assert config.metrics.token == SECRET
    assert SECRET not in repr(config)


def test_every_setting_may_be_given_as_documented() -> None:
    raw = {
        "BROKERS": {
            "default": {
                "BACKEND": "django_gomq.backends.memory.MemoryBackend",
                "ON_REFUSED": "raise",
                "RUN": "here",
                "OPTIONS": {"capacity": 5},
            },
            "second": {},
        },
        "ROUTES": {"billing.*": "second"},
        "CONSUMERS": {"a": {"concurrency": 4, "capacity": 5000}},
        "EVENTS": ["page.viewed"],
        "AUTODISCOVER": ["consumers"],
        "AUTODISCOVER_EXCLUDE": ["chat"],
        "THREADS": 2,
        "EMIT_ON_COMMIT": False,
        "EMIT_USING": "other",
        "NO_CONSUMER": "ignore",
        "DRAIN_TIMEOUT": 1,
        "FLUSH_TIMEOUT": 0.5,
        "MAX_BODY_BYTES": 100,
        "METRICS": {
            "ACCESS": "open",
            "WAIT_BUCKETS": [1, 2],
            "UNDECLARED_EVENTS": 200,
            "PORT_RANGE": [9464, 9470],
            "PORT_ADDRESS": "::1",
        },
        "TRACING": {"ENABLED": None, "CONSUMER": "link"},
        "DEAD_LETTERS": {"KEEP": 5, "USING": None},
    }

    config = load(raw)

    assert config.brokers["default"].on_refused == "raise"
    assert config.brokers["default"].options == {"capacity": 5}
    assert config.events == ("page.viewed",)
    assert config.metrics.wait_buckets == (1, 2)
    assert config.metrics.undeclared_events == 200
    assert config.metrics.port_range == (9464, 9470)
    assert config.tracing.consumer == "link"
    assert config.threads == 2


def test_seconds_may_be_timedeltas() -> None:
    memory = {"OPTIONS": {"max_delay": timedelta(minutes=10)}}
    raw: Any = {
        "DRAIN_TIMEOUT": timedelta(seconds=30),
        "FLUSH_TIMEOUT": timedelta(milliseconds=50),
        "BROKERS": {"default": memory},
    }

    assert list(check(raw)) == []
    config = load(raw)
    assert (config.drain_timeout, config.flush_timeout) == (30.0, 0.05)
    options = config.brokers["default"].options
    assert MemoryBackend(**options).capabilities.max_delay == 600


def test_no_setting_at_all_is_fine() -> None:
    assert load(None) == load({})
    assert load(None).brokers["default"].run == "auto"


def test_a_wrong_setting_is_a_system_check_too(
    use_site: UseSite, settings: Settings, own_event_classes: None
) -> None:
    use_site()
    settings.GOMQ["THREADS"] = 0

    errors = [one for one in run_checks(tags=["gomq"]) if isinstance(one, Error)]

    assert [one.id for one in errors] == ["gomq.E002"]
    assert errors[0].hint == "Make it a whole number from 1 to 1,000."
