"""What a server holds is on the page of each process that asks it, once for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    Settled,
    Settlement,
)
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import BackendUnavailableError, PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ServerProcess, ServerSample, ServerStats
from django_gomq.bus.worker.worker import Worker
from django_gomq.observability.metrics import install, render
from django_gomq.observability.metrics.collector import BusCollector
from django_gomq.observability.metrics.multiprocess.collector import SharedMetrics

from .companions import page_of
from .golden import series_of
from .live import do_nothing, wait_until
from .numbers import Page

ALIVE = ServerProcess(host="one", pid=1, beat_age=1.0, is_late=False)
LATE = ServerProcess(host="two", pid=2, beat_age=90.0, is_late=True)
SAMPLE = ServerSample(
    consumers={
        "counts": ServerStats(
            ready=7, held=6, trimmed=5, scheduled=2, dead=3, oldest_age=41.5, workers=1
        ),
        "gone": ServerStats(ready=4, scheduled=0, dead=0, oldest_age=9.0, workers=0),
    },
    outbox_depth=5,
    outbox_oldest_age=12.5,
    outbox_refused=4,
    is_relayed=True,
    processes=[ALIVE, LATE],
    found_dead=1,
)


class Told(Backend):
    """A server that holds what the test says."""

    name: ClassVar[str] = "told"
    capabilities = Capabilities(durable=True, dead_letters=True, lease=30.0)

    def __init__(self, sample: ServerSample) -> None:
        self.sample = sample
        self.is_away = False

    def open(self, context: BackendContext) -> None: ...

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        if self.is_away:
            return [BackendUnavailableError("away")] * len(messages)
        return [None] * len(messages)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return [Settled.DONE] * len(settlements)

    def stats(self) -> ServerSample:
        return self.sample


class Process:
    """One that may share its numbers with others in a directory."""

    def __init__(self, sample: ServerSample, folder: Path | None = None) -> None:
        self.worker = Worker(threads=2)
        self.backend = Told(sample)
        self.broker = Broker(lambda: self.backend, get_worker=lambda: self.worker)
        self.broker.consume("record.saved", do_nothing, name="counts")
        self.collector = BusCollector(lambda: [self.broker], lambda: self.worker)
        if folder is not None:
            self.sharing = SharedMetrics(str(folder), self.collector)

    def start(self) -> None:
        self.broker.start()
        wait_until(lambda: self.broker.stats().server.consumers)

    def page(self) -> Page:
        registry = CollectorRegistry()
        registry.register(self.collector)
        return Page(registry)

    def close(self) -> None:
        self.broker.close(timeout=1)
        self.worker.stop(timeout=1)


def one_of(page: Page, name: str, **labels: str) -> float:
    (value,) = page.values(name, **labels)
    return value


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Process]]:
    made = [Process(SAMPLE, tmp_path), Process(SAMPLE, tmp_path)]
    yield made
    for process in made:
        process.close()
        process.sharing.end()


def test_what_waits_at_the_server_is_shown(processes: list[Process]) -> None:
    process = processes[0]
    process.start()

    page = process.page()

    counts, gone = ({"consumer": name} for name in ("counts", "gone"))
    assert one_of(page, "server_depth", **counts) == 7
    assert one_of(page, "server_depth", **gone) == 4
    assert one_of(page, "server_scheduled", **counts) == 2
    assert one_of(page, "server_pending", **counts) == 6
    assert one_of(page, "server_trimmed", **counts) == 5
    assert page.values("server_trimmed", **gone) == []  # it does not say
    assert one_of(page, "server_oldest_age_seconds", **counts) == 41.5
    assert one_of(page, "server_dead_letters", **counts) == 3
    assert one_of(page, "server_workers", **counts) == 1
    assert one_of(page, "server_workers", **gone) == 0
    assert one_of(page, "server_processes") == 1
    assert one_of(page, "server_processes_died_total") == 1
    assert one_of(page, "outbox_depth") == 5
    assert one_of(page, "outbox_oldest_age_seconds") == 12.5
    assert one_of(page, "outbox_refused") == 4
    assert one_of(page, "relay_up") == 1
    assert one_of(page, "backend_up") == 1
    assert one_of(page, "messages_fetched_total", **counts) == 0
    assert one_of(page, "leases_lost_total", **counts) == 0


def test_all_processes_see_the_same_server(processes: list[Process]) -> None:
    one, two = processes
    less = ServerStats(ready=6, scheduled=1, dead=3, oldest_age=30.0, workers=1)
    two.backend.sample = ServerSample(
        consumers={"counts": less}, outbox_depth=2, processes=[ALIVE], found_dead=2
    )
    for process in processes:
        process.start()
    two.backend.is_away = True
    with pytest.raises(BackendUnavailableError):
        two.broker.publish(Message("record.saved"))
    one.sharing.flush()

    page = page_of(two.sharing)

    assert one_of(page, "server_depth", consumer="counts") == 7
    assert one_of(page, "server_oldest_age_seconds", consumer="counts") == 41.5
    assert one_of(page, "outbox_depth") == 5
    assert one_of(page, "server_processes") == 1
    # What each of them has counted itself adds up.
    assert one_of(page, "server_processes_died_total") == 3
    assert one_of(page, "backend_up") == 0


def test_how_long_the_server_takes_is_shown_for_each_operation_from_the_start(
    processes: list[Process],
) -> None:
    one, two = processes
    one.start()
    one.broker.publish(Message("record.saved"))
    one.broker.publish_many([Message("record.saved")] * 3)
    two.broker.publish(Message("record.saved"))
    one.sharing.flush()
    two.sharing.flush()

    page = page_of(two.sharing)

    name = "backend_operation_seconds_count"
    operations = page.labels(name, "operation")
    assert operations == {"publish", "fetch", "settle", "extend"}
    counts = {each: page.sum(name, operation=each) for each in operations}
    assert (counts["publish"], counts["settle"], counts["extend"]) == (3, 0, 0)
    (seconds,) = page.values("backend_operation_seconds_sum", operation="publish")
    assert 0 < seconds < 60


def test_a_server_that_answers_again_is_counted(processes: list[Process]) -> None:
    process = processes[0]
    process.backend.is_away = True
    with pytest.raises(BackendUnavailableError):
        process.broker.publish(Message("record.saved"))
    assert one_of(process.page(), "backend_reconnects_total") == 0

    process.backend.is_away = False
    wait_until(lambda: accepts(process))
    process.broker.publish(Message("record.saved"))

    assert one_of(process.page(), "backend_reconnects_total") == 1


def accepts(process: Process) -> bool:
    """Whether a publish is tried again, and taken."""
    (answer,) = process.broker.publish_many([Message("record.saved")])
    return answer is None


def test_who_only_emits_asks_the_server_nothing() -> None:
    broker = Broker(lambda: Told(SAMPLE), may_start=lambda: False)
    broker.consume("record.saved", do_nothing, name="counts")
    broker.publish(Message("record.saved"))
    registry = CollectorRegistry()
    registry.register(BusCollector(lambda: [broker]))

    page = Page(registry)

    assert one_of(page, "backend_up") == 1
    assert page.values("server_depth") == []
    assert page.values("outbox_depth") == []


def test_thirty_events_and_forty_consumers_of_a_server_stay_within_3000_series() -> (
    None
):
    names = [f"app.consumer_{number}" for number in range(40)]
    numbers = ServerStats(
        ready=0, held=0, trimmed=0, scheduled=0, dead=0, oldest_age=0.0, workers=1
    )
    sample = ServerSample(
        consumers=dict.fromkeys(names, numbers),
        outbox_depth=0,
        outbox_oldest_age=0.0,
        processes=[ALIVE],
        found_dead=0,
    )
    broker = Broker(lambda: Told(sample))
    events = [f"app.event_{number}" for number in range(30)]
    for number, name in enumerate(names):
        types = [events[number % 30], events[(number + 7) % 30]]
        broker.consume(types, do_nothing, name=name)
    registry = CollectorRegistry()
    install(lambda: [broker], registry=registry)
    broker.start()
    wait_until(lambda: broker.stats().server.consumers)

    page = render("", registry=registry)[0].decode()

    assert 2_500 < len(series_of(page)) <= 3_000
    broker.close(timeout=0)
