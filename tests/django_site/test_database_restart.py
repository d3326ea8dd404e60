"""A database server that goes away under load and comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from django_gomq import Message, Retry, consumer, emit, emit_many, get_broker
from django_gomq.bus.stats import ConsumerStats
from tests.django_site import postgres
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.databases import allowed, postgres_alias
from tests.django_site.handlers import wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

COUNT = 400
THREADS = 4
ROOM = 100_000  # for all that is emitted while the server is away


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server of this module's own, as the others' must not go away."""
    with postgres.running() as one:
        yield one


@pytest.fixture(params=[{"CONN_MAX_AGE": 0}, {"CONN_MAX_AGE": None}, {"pool": True}])
def database(
    request: pytest.FixtureRequest,
    server: postgres.Server,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """An alias of that server, without health checks."""
    entry: dict[str, Any] = dict(request.param)
    if entry.pop("pool", False):
        pool = {"min_size": 4, "max_size": 8, "timeout": 1.0, "reconnect_timeout": 0.5}
        entry["OPTIONS"] = {"pool": pool}
    with (
        allowed(django_db_blocker),
        postgres_alias(server.address, **entry) as alias,
    ):
        yield alias


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        one
        for one in caplog.records
        if one.name.startswith("gomq") and one.levelno >= logging.WARNING
    ]


def stats_of(name: str) -> ConsumerStats:
    return get_broker().stats().consumers[name]


def succeeded(name: str) -> int:
    return stats_of(name).succeeded


def emit_through(trouble: Callable[[], object]) -> int:
    """Emit until the trouble, which begins under load, is over; return how many."""
    is_over = threading.Event()

    def make_trouble() -> None:
        wait_until(lambda: succeeded("writes") > 50, "load")
        trouble()
        is_over.set()

    thread = threading.Thread(target=make_trouble)
    thread.start()
    emitted = 0
    while emitted < COUNT or not is_over.is_set():
        emitted += bool(emit("page.viewed", emitted))
        # A server may take long to come back: that is no reason for many more rows.
        is_over.wait(0.001 if emitted < COUNT else 0.02)
    thread.join()
    return emitted


def reconnect(alias: str) -> None:
    """Drop the connection of the test itself, which was cut as all others."""
    connections[alias].close()


def test_consumers_work_again_after_a_restart_under_load(
    database: str,
    server: postgres.Server,
    live_site: UseSite,
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = time.monotonic()
    records = Record.objects.using(database)

    def write(message: Message[int]) -> None:
        with transaction.atomic(using=database):
            records.create(patient_id=message.data)

    async def count(message: Message[int]) -> None:
        await records.acount()

    retry = Retry(attempts=1000, min_delay=0.01, max_delay=0.05)
    consumer("page.viewed", name="writes", retry=retry, capacity=ROOM)(write)
    consumer("page.viewed", name="counts", retry=retry, concurrency=4, capacity=ROOM)(
        count
    )
    live_site(THREADS=THREADS)

    emitted = emit_through(server.restart)
    wait_quiet()

    reconnect(database)
    stats = get_broker().stats().consumers
    assert emitted == succeeded("writes") == succeeded("counts")
    assert stats["writes"].retries + stats["counts"].retries > 0, "nothing was cut"
    assert set(records.values_list("patient_id", flat=True)) == set(range(emitted))
    assert_is_no_flood(warnings(caplog), began)


def assert_is_no_flood(lines: Sequence[logging.LogRecord], began: float) -> None:
    """In ten seconds one line of a kind about a consumer and a class of error."""
    most = 1 + (time.monotonic() - began) / 10
    told: Counter[tuple[str, ...]] = Counter()
    for one in lines:
        fields = vars(one)
        subject = fields["gomq_kind"], fields["gomq_consumer"], fields["gomq_reason"]
        told[subject] += 1
        assert told[subject] <= most, f"{subject} floods the log"


def give_patience(alias: str, seconds: float) -> None:
    """Have the pool, if there is one, wait so long for a connection."""
    pool = getattr(connections[alias], "pool", None)
    if pool is not None:
        pool.timeout = seconds


@contextmanager
def without(server: postgres.Server, alias: str) -> Iterator[None]:
    """Stop the server; at the end start it and wait until all is handled."""
    give_patience(alias, 0.1)
    server.stop()
    try:
        yield
    finally:
        server.start()
    wait_quiet()
    give_patience(alias, SECONDS)


def test_a_server_that_is_away_for_a_while_dead_letters_by_the_law(
    database: str,
    server: postgres.Server,
    live_site: UseSite,
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = time.monotonic()
    records = Record.objects.using(database)

    def write(message: Message[int]) -> None:
        records.create(patient_id=message.data)

    # Each thread may have a connection that was cut.
    retry = Retry(attempts=THREADS + 1, min_delay=0.01, max_delay=0.01)
    patient = Retry(attempts=1000, min_delay=0.05, max_delay=0.2)
    consumer("page.viewed", name="gives_up", retry=retry)(write)
    consumer("page.viewed", name="waits", retry=patient)(write)
    live_site(THREADS=THREADS, DEAD_LETTERS={"USING": None})
    give_patience(database, SECONDS)
    emit_many([("page.viewed", number) for number in range(20)])
    wait_quiet()

    with without(server, database):
        emit_many([("page.viewed", number) for number in range(20, 40)])
        wait_until(lambda: stats_of("gives_up").dead_lettered == 20, "dead letters")
        wait_until(lambda: stats_of("waits").retries > 20)
    emit_many([("page.viewed", number) for number in range(40, 60)])
    wait_quiet()

    reconnect(database)
    given_up = stats_of("gives_up")
    assert (given_up.succeeded, given_up.dead_lettered) == (40, 20)
    assert succeeded("waits") == 60
    assert len(get_broker().dead_letters()) == 20
    assert records.count() == 40 + 60
    lines = warnings(caplog)
    assert_is_no_flood(lines, began)
    assert {"dead_lettered", "retrying"} <= {vars(one)["gomq_kind"] for one in lines}
