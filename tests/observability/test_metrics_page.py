from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import Attempt, Hook, Watch
from django_gomq.bus.retry import Retry
from django_gomq.observability.metrics import install, render

from .conftest import MakeBroker
from .golden import HERE, check_series, series_of
from .live import do_nothing, publish, wait_quiet, wait_until

parse_openmetrics: Callable[[str], Iterable[Metric]] = (
    openmetrics_parser.text_string_to_metric_families
)

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Traced(Watch):
    trace_id = TRACE_ID


class TracesAll(Hook):
    watches_attempts = True

    def attempting(self, attempt: Attempt) -> Watch:
        return Traced()


async def warm_cache(message: object) -> None:
    """Handles a message on the loop."""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def clinic(make_broker: MakeBroker) -> Broker:
    """One consumer for each option that has series of its own."""
    broker = make_broker(
        declared=lambda: ["record.saved", "page.viewed", "never.consumed"]
    )
    broker.consume("record.saved", do_nothing, name="plain")
    broker.consume("record.saved", do_nothing, name="evicts", overflow="drop_oldest")
    broker.consume("record.*", do_nothing, name="pattern", overflow="backpressure")
    broker.consume("page.viewed", do_nothing, name="expires", max_age=60.0)
    broker.consume("page.viewed", warm_cache, name="cancelled", timeout=5.0)
    broker.consume("page.viewed", do_nothing, name="reported", timeout=5.0)
    return broker


def page_of(registry: CollectorRegistry, accept: str = "") -> str:
    return render(accept, registry=registry)[0].decode()


def test_a_page_before_the_first_message_has_every_series_that_can_be(
    clinic: Broker, registry: CollectorRegistry
) -> None:
    install(lambda: [clinic], registry=registry)

    check_series(page_of(registry), HERE / "series.golden.txt")


def test_openmetrics_has_the_same_series(
    clinic: Broker, registry: CollectorRegistry
) -> None:
    install(lambda: [clinic], registry=registry)

    assert series_of(page_of(registry, OPENMETRICS)) == series_of(page_of(registry))


def test_before_the_first_message_all_that_is_counted_is_zero(
    clinic: Broker, registry: CollectorRegistry
) -> None:
    install(lambda: [clinic], registry=registry)

    counted = {
        sample.name: sample.value
        for family in parse_text(page_of(registry))
        for sample in family.samples
        if family.type in ("counter", "histogram")
    }

    assert set(counted.values()) == {0.0}


def test_a_scrape_starts_no_broker(clinic: Broker, registry: CollectorRegistry) -> None:
    install(lambda: [clinic], registry=registry)
    before = set(threading.enumerate())

    page_of(registry)

    assert not clinic.is_started
    assert set(threading.enumerate()) <= before


def test_messages_add_no_series_but_timestamps(
    clinic: Broker, registry: CollectorRegistry
) -> None:
    install(lambda: [clinic], registry=registry)
    before = series_of(page_of(registry))

    publish(clinic, "record.saved", 3)
    publish(clinic, "page.viewed", 3)
    wait_quiet(clinic)

    new = set(series_of(page_of(registry))).difference(before)
    assert {series.partition("{")[0] for series in new} == {
        "gomq_last_success_timestamp_seconds"
    }


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html, */*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_the_page_is_written_in_what_the_reader_asks_for(
    accept: str, content_type: str, registry: CollectorRegistry
) -> None:
    page, answered = render(accept, registry=registry)

    assert answered.startswith(content_type)
    assert page.endswith(b"# EOF\n") == answered.startswith("application/openmetrics")


def test_a_version_that_is_no_number_is_answered_too(
    registry: CollectorRegistry,
) -> None:
    install(list, registry=registry)

    page, _ = render("application/openmetrics-text;version=x.y", registry=registry)

    assert b"gomq_threads 0.0" in page


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        "text/plain;version=1.0.0;escaping=dots",
        OPENMETRICS,
        f"{OPENMETRICS}; escaping=allow-utf-8",
        f"{OPENMETRICS}; escaping=values",
        "application/openmetrics-text; version=2.0.0",
    ],
)
def test_our_writer_writes_what_the_client_library_writes(
    accept: str, make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker('a "quoted"\nalias', hooks=[TracesAll()])
    broker.consume("record.saved", do_nothing, name="plain")
    Gauge("of_the_project", 'has "text"', ["a"], registry=registry).labels("\n").set(7)
    install(lambda: [broker], registry=registry)
    publish(broker, "record.saved", 3)
    wait_quiet(broker)
    # A handler that has just ended, and whose clock runs, differs in two renders.
    wait_until(lambda: not broker.stats().consumers["plain"].running_seconds)

    page, content_type = render(accept, registry=registry)

    encode, expected_type = choose_encoder(accept)
    assert content_type == expected_type
    assert sorted(page.splitlines()) == sorted(encode(registry).splitlines())


@pytest.mark.parametrize(
    ("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)]
)
def test_a_strict_reader_accepts_the_page(
    accept: str,
    parse: Callable[[str], Iterable[Metric]],
    clinic: Broker,
    registry: CollectorRegistry,
) -> None:
    install(lambda: [clinic], registry=registry)
    publish(clinic, "record.saved", 5)
    wait_quiet(clinic)

    families = list(parse(page_of(registry, accept)))

    assert len(families) > 20


def test_openmetrics_carries_the_trace_of_a_slow_handler(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    broker = make_broker(hooks=[TracesAll()])
    broker.consume("record.saved", do_nothing, name="plain")
    install(lambda: [broker], registry=registry)
    publish(broker, "record.saved")
    wait_quiet(broker)

    exemplars = [
        (family.name, sample, sample.exemplar)
        for family in parse_openmetrics(page_of(registry, OPENMETRICS))
        for sample in family.samples
        if sample.exemplar is not None
    ]

    [(name, sample, exemplar)] = exemplars
    assert name == "gomq_handler_duration_seconds"
    assert exemplar.labels == {"trace_id": TRACE_ID}
    assert exemplar.value <= float(sample.labels["le"])
    assert TRACE_ID not in page_of(registry)


def test_there_are_no_created_series(
    clinic: Broker, registry: CollectorRegistry
) -> None:
    install(lambda: [clinic], registry=registry)

    assert "_created" not in page_of(registry) + page_of(registry, OPENMETRICS)


def test_thirty_events_and_forty_consumers_stay_within_2500_series(
    make_broker: MakeBroker, registry: CollectorRegistry
) -> None:
    def fail(message: object) -> None:
        raise ValueError

    broker = make_broker()
    events = [f"app.event_{number}" for number in range(30)]
    for number in range(40):
        types = [events[number % 30], events[(number + 7) % 30]]
        retry = Retry(attempts=2, min_delay=0.0)
        handler = do_nothing if number % 2 else fail
        broker.consume(types, handler, name=f"app.consumer_{number}", retry=retry)
    install(lambda: [broker], registry=registry)
    for event in events:
        publish(broker, event)
    wait_quiet(broker)

    assert 1_500 < len(series_of(page_of(registry))) <= 2_500
