"""What operators see of a Redis broker on the page of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from django_gomq.observability.metrics.collector import BusCollector
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.observability.numbers import Page

STREAM = f"{{gomq}}:e:{EVENT}"

pytestmark = pytest.mark.usefixtures("_sampled_often")


@pytest.fixture
def _sampled_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_gomq.bus.readers.SAMPLE_SECONDS", 0.05)
    monkeypatch.setattr("django_gomq.bus.readers.SAMPLE_REST", 1)


def numbers_of(process: Process) -> Callable[..., list[float]]:
    """Return what reads values off the page of a process."""
    registry = CollectorRegistry()
    registry.register(BusCollector(lambda: [process.broker]))
    return lambda name, **labels: Page(registry).values(name, **labels)


def test_what_waits_is_held_and_how_long_the_server_takes_is_on_the_page(
    redis_site: Site,
) -> None:
    process, gate = redis_site.process(), redis_site.gate()
    process.consume(gate, concurrency=1, capacity=2)
    process.send_many(range(10))
    values = numbers_of(process)

    wait_until(lambda: values("server_pending", consumer=CONSUMER) == [2])
    wait_until(lambda: values("server_depth", consumer=CONSUMER) == [8])
    wait_until(lambda: values("server_workers", consumer=CONSUMER) == [1])
    gate.open()

    wait_until(lambda: values("server_pending", consumer=CONSUMER) == [0])
    for operation in ("publish", "fetch", "settle"):
        (count,) = values("backend_operation_seconds_count", operation=operation)
        assert count > 0
    assert values("backend_operation_seconds_count", operation="extend")


def test_an_outage_is_seen_while_it_lasts_and_counted_when_it_ends(
    redis_site: Site,
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes)
    values = numbers_of(process)
    wait_until(lambda: values("server_depth", consumer=CONSUMER) == [0])
    assert (values("backend_up"), values("backend_reconnects_total")) == ([1], [0])

    redis_site.harness.stop_server()
    wait_until(lambda: values("backend_up") == [0])
    redis_site.harness.start_server()

    wait_until(lambda: values("backend_up") == [1])
    wait_until(lambda: values("backend_reconnects_total") == [1])


def test_what_somebody_trims_unread_is_on_the_page(
    redis_site: Site, redis_client: Any
) -> None:
    process = redis_site.process()
    process.consume(Notes(), starts=False)
    process.broker.pause(CONSUMER)
    process.broker.start()
    process.send(*range(5))
    values = numbers_of(process)
    wait_until(lambda: values("server_depth", consumer=CONSUMER) == [5])
    assert values("server_trimmed", consumer=CONSUMER) == [0]

    redis_client.xtrim(STREAM, maxlen=2, approximate=False)

    wait_until(lambda: values("server_trimmed", consumer=CONSUMER) == [3])


def test_a_group_that_nobody_reads_for_is_on_the_page_until_it_is_removed(
    redis_site: Site, redis_client: Any
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes)
    redis_client.xgroup_create(STREAM, "of.others", "$")
    process.send(1)
    values = numbers_of(process)

    wait_until(lambda: values("server_depth", consumer="of.others") == [1])
    assert values("server_workers", consumer="of.others") == [0]

    assert process.broker.backend.remove("of.others", discard=False) == 1
    wait_until(lambda: values("server_depth", consumer="of.others") == [0])
    (letter,) = process.broker.dead_letters()
    assert letter.consumer == "of.others"
    assert [group["name"] for group in redis_client.xinfo_groups(STREAM)] == [
        CONSUMER.encode()
    ]
