"""Handlers behind PgBouncer, whose clients share the server's connections."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from django_gomq import Message, Retry, consumer, emit_many, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.databases import allowed, postgres_alias
from tests.django_site.handlers import wait_quiet
from tests.django_site.pgbouncer import Bouncer, bouncing
from tests.django_site.waiting import SECONDS, wait_until

SIZE = 3  # connections to the server, fewer than threads


@pytest.fixture(params=["transaction", "session"])
def bouncer(
    request: pytest.FixtureRequest, postgres_server: dict[str, object]
) -> Iterator[Bouncer]:
    size = SIZE if request.param == "transaction" else 20
    with bouncing(postgres_server, request.param, size) as one:
        yield one


@pytest.fixture
def bounced(
    bouncer: Bouncer,
    postgres_server: dict[str, object],
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[str]:
    """The alias of a database that is reached through PgBouncer."""
    entry = {**postgres_server, "PORT": bouncer.port}
    with (
        allowed(django_db_blocker),
        postgres_alias(
            entry, has_pooler=True, DISABLE_SERVER_SIDE_CURSORS=True
        ) as alias,
    ):
        yield alias


def test_rows_are_written_through_pgbouncer(bounced: str, live_site: UseSite) -> None:
    records = Record.objects.using(bounced)

    def write(message: Message[int]) -> None:
        with transaction.atomic(using=bounced):
            records.create(patient_id=message.data)

    async def write_async(message: Message[int]) -> None:
        await records.acreate(patient_id=message.data)

    consumer("page.viewed", name="writes")(write)
    consumer("page.viewed", name="awaits", concurrency=4)(write_async)
    live_site(THREADS=8)

    emit_many([("page.viewed", number) for number in range(200)])
    wait_quiet()

    rows = records.values_list("patient_id", flat=True)
    assert sorted(rows) == sorted([*range(200), *range(200)])


def test_a_transaction_left_open_gives_the_servers_connection_free(
    bounced: str, live_site: UseSite
) -> None:
    def leave(message: Message[int]) -> None:
        transaction.atomic(using=bounced).__enter__()
        Record.objects.using(bounced).create(patient_id=message.data)

    consumer("page.left", name="leaves")(leave)
    consumer("page.viewed", name="counts")(
        lambda message: Record.objects.using(bounced).count()
    )
    live_site(THREADS=2)

    emit_many([("page.left", number) for number in range(3 * SIZE)])
    wait_quiet()
    emit_many([("page.viewed", number) for number in range(10)])
    wait_quiet()

    assert get_broker().stats().consumers["counts"].succeeded == 10
    assert Record.objects.using(bounced).count() == 0


def test_a_restart_of_pgbouncer_costs_attempts_and_no_message(
    bounced: str, bouncer: Bouncer, live_site: UseSite
) -> None:
    records = Record.objects.using(bounced)
    stopped = Event()

    def write(message: Message[int]) -> None:
        if message.data == 25:
            stopped.wait(SECONDS)
        with transaction.atomic(using=bounced):
            records.create(patient_id=message.data)

    retry = Retry(attempts=1000, min_delay=0.01, max_delay=0.1)
    consumer("page.viewed", name="writes", retry=retry)(write)
    live_site(THREADS=4)

    emit_many([("page.viewed", number) for number in range(200)])
    wait_until(lambda: get_broker().stats().consumers["writes"].succeeded > 20)
    bouncer.stop()
    stopped.set()
    wait_until(lambda: get_broker().stats().consumers["writes"].retries > 10)
    bouncer.start()
    wait_quiet()

    connections[bounced].close()  # the test's own was cut too
    stats = get_broker().stats().consumers["writes"]
    assert (stats.succeeded, stats.dead_lettered) == (200, 0)
    assert set(records.values_list("patient_id", flat=True)) == set(range(200))
