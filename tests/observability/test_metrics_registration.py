from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest

from django_gomq.bus.broker import Broker
from django_gomq.observability.metrics import install, render, uninstall
from django_gomq.observability.metrics.collector import IncompleteError
from django_gomq.observability.metrics.text import render_fine

from .conftest import MakeBroker
from .live import do_nothing
from .numbers import Page


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def refuse() -> Iterator[Broker]:
    raise RuntimeError("nobody may look yet")


def test_registering_touches_no_broker() -> None:
    registry = CollectorRegistry(auto_describe=True)

    made = install(refuse, refuse, registry=registry)  # type: ignore[arg-type]

    assert made.failures.counts["BusCollector"] == 0


def test_installing_again_replaces_what_is_shown(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    first = install(lambda: [make_broker("old")], registry=registry)

    again = install(lambda: [make_broker("new")], registry=registry)

    assert again is first
    assert Page(registry).labels("dispatcher_up", "broker") == {"new"}


def test_installing_survives_a_registry_that_was_emptied(
    registry: CollectorRegistry,
) -> None:
    registry.unregister(install(list, registry=registry))

    install(list, registry=registry)

    assert Page(registry).sum("threads") == 0


def test_uninstalled_metrics_are_gone(registry: CollectorRegistry) -> None:
    install(list, registry=registry)

    uninstall(registry)
    uninstall(registry)

    assert render("", registry=registry)[0] == b""


def test_the_default_registry_shows_them_beside_the_process(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    install(lambda: [broker])
    try:
        page = render("")[0].decode()
    finally:
        uninstall(REGISTRY)

    assert 'gomq_dispatcher_up{broker="default"} 1.0' in page
    assert "python_info" in page


def test_metrics_can_be_picked_by_name(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    install(lambda: [make_broker()], registry=registry)

    picked = registry.restricted_registry(["gomq_threads"]).collect()

    assert [family.name for family in picked] == ["gomq_threads"]


def test_a_page_that_lacks_a_broker_is_none_and_other_endpoints_show_the_rest(
    make_broker: MakeBroker,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken, sound = make_broker("broken"), make_broker("sound")
    sound.consume("a", do_nothing, name="runs")
    monkeypatch.setattr(broken, "stats", refuse)
    Gauge("of_the_project", "text", registry=registry).set(7)
    install(lambda: [broken, sound], registry=registry)

    with caplog.at_level(logging.ERROR, "gomq.metrics"):
        for one in (render, render_fine):
            with pytest.raises(IncompleteError):
                one("", registry=registry)
    elsewhere = generate_latest(registry).decode()

    assert 'gomq_dispatcher_up{broker="sound"} 1.0' in elsewhere
    assert 'gomq_telemetry_errors_total{kind="BusCollector"} 3.0' in elsewhere
    assert "of_the_project 7.0" in elsewhere
    [record] = caplog.records
    assert record.exc_info
