"""Django's own pool of psycopg connections under handlers, also after a fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from django_gomq import Message, Retry, consumer, emit, emit_many, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.databases import (
    allowed,
    kill_other_backends,
    postgres_alias,
)
from tests.django_site.handlers import wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

MAX_SIZE = 3  # one of them is the observer's: the test's own thread


@pytest.fixture
def pool(
    postgres_server: dict[str, object],
    django_db_blocker: DjangoDbBlocker,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The alias of a database with a pool of three, of which the test takes one.

    Threads do not run idle, which would give back what they kept.
    """
    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 3600.0)
    monkeypatch.setattr("django_gomq.database.ASYNC_IDLE_SECONDS", 3600.0)
    options = {"pool": {"min_size": MAX_SIZE, "max_size": MAX_SIZE, "timeout": SECONDS}}
    with (
        allowed(django_db_blocker),
        postgres_alias(
            postgres_server, OPTIONS=options, CONN_HEALTH_CHECKS=True
        ) as alias,
    ):
        yield alias


def free(alias: str) -> int:
    """Return how many connections of the pool nobody holds."""
    count: int = connections[alias].pool.get_stats()["pool_available"]  # type: ignore[attr-defined]
    return count


def test_an_idle_thread_holds_no_pooled_connection(
    pool: str, live_site: UseSite
) -> None:
    consumer("page.viewed", name="counts")(
        lambda message: Record.objects.using(pool).count()
    )
    live_site(THREADS=8)

    emit_many([("page.viewed", number) for number in range(50)])
    wait_quiet()

    wait_until(lambda: free(pool) == MAX_SIZE - 1, "the pool to be full")
    assert get_broker().stats().consumers["counts"].succeeded == 50


def test_async_handlers_hold_no_pooled_connection_when_none_runs(
    pool: str, live_site: UseSite
) -> None:
    async def count(message: Message[Any]) -> None:
        await Record.objects.using(pool).acount()

    consumer("page.viewed", name="counts", concurrency=8)(count)
    live_site()

    emit_many([("page.viewed", number) for number in range(50)])
    wait_quiet()

    wait_until(lambda: free(pool) == MAX_SIZE - 1, "the pool to be full")


def test_more_threads_than_pooled_connections_wait_and_finish(
    pool: str, live_site: UseSite
) -> None:
    lock, inside, highest = threading.Lock(), 0, 0

    def write(message: Message[Any]) -> None:
        nonlocal inside, highest
        with transaction.atomic(using=pool):
            Record.objects.using(pool).create(patient_id=message.data)
            with lock:
                inside += 1
                highest = max(highest, inside)
            Record.objects.using(pool).count()
            with lock:
                inside -= 1

    consumer("page.viewed", name="writes", concurrency=8)(write)
    live_site(THREADS=8)

    emit_many([("page.viewed", number) for number in range(300)])
    wait_quiet()

    rows = Record.objects.using(pool).values_list("patient_id", flat=True)
    assert sorted(rows) == list(range(300))
    assert 1 <= highest <= MAX_SIZE - 1


def test_a_transaction_left_open_does_not_go_back_to_the_pool(
    pool: str, live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[tuple[bool, int]] = []

    def leave(message: Message[Any]) -> None:
        transaction.atomic(using=pool).__enter__()
        Record.objects.using(pool).create(patient_id=1)

    def look(message: Message[Any]) -> None:
        count = Record.objects.using(pool).count()
        states.append((connections[pool].in_atomic_block, count))

    consumer("page.left", name="leaves")(leave)
    consumer("page.viewed", name="looks")(look)
    live_site(THREADS=1)
    for _ in range(MAX_SIZE):
        emit("page.left")
        wait_quiet()
        emit("page.viewed")
        wait_quiet()

    assert states == [(False, 0)] * MAX_SIZE
    reports = [one for one in caplog.records if one.name == "gomq.database"]
    assert len(reports) == MAX_SIZE


def test_killed_backends_of_a_pool_cost_no_message(
    pool: str, live_site: UseSite
) -> None:
    retry = Retry(attempts=5, min_delay=0.01, max_delay=0.1)
    consumer("page.viewed", name="counts", retry=retry)(
        lambda message: Record.objects.using(pool).count()
    )
    live_site(THREADS=2)
    for _ in range(3):
        emit_many([("page.viewed", number) for number in range(10)])
        wait_quiet()
        kill_other_backends()

    assert get_broker().stats().consumers["counts"].succeeded == 30


# ------------------------------------------------------------------ after a fork

FORK = """
import json, os, sys
import django
from django.conf import settings
settings.configure(
    DATABASES=json.loads(sys.argv[1]),
    INSTALLED_APPS=["django_gomq"],
    GOMQ={"AUTODISCOVER": [], "THREADS": 2},
)
django.setup()
from django.db import connection
from django_gomq import consumer, emit, get_broker

def pid():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

seen = []
consumer("page.viewed", name="asks")(lambda message: seen.append(pid()))
from django_gomq import site
site.renew()

def sessions():
    for _ in range(6):
        assert emit("page.viewed")
    assert get_broker().close(60).is_clean
    return sorted(set(seen))

def parents():
    found = set()
    for _ in range(4):
        found.add(pid())
        connection.close()
    return sorted(found)

before = parents()
end, into = os.pipe()
if not os.fork():
    os.write(into, json.dumps(sessions()).encode())
    os._exit(0)
os.wait()
child = json.loads(os.read(end, 1000))
print(json.dumps([before, child, parents()]))
connection.close_pool()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_makes_a_pool_of_its_own_and_leaves_its_parents(
    postgres_server: dict[str, object],
) -> None:
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        **postgres_server,
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 1}},
    }
    done = subprocess.run(
        [sys.executable, "-c", FORK, json.dumps({"default": entry})],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    before, child, after = json.loads(done.stdout)
    assert child
    assert not set(child) & set(before)
    assert before == after


# ------------------------------------------------------------------------ checks


def warnings() -> list[CheckMessage]:
    return [one for one in run_checks() if one.id == "gomq.W006"]


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (True, 4),  # psycopg_pool's default
        ({"min_size": 5}, 5),
        ({"max_size": 7}, 7),
        ({"min_size": 2, "max_size": 8}, None),
        ({"max_size": 9}, None),
        (False, None),
        (None, None),
    ],
)
def test_w006_warns_of_a_pool_that_is_smaller_than_the_threads(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch, pool: object, size: int | None
) -> None:
    entry = {**connections.settings["default"], "OPTIONS": {"pool": pool}}
    monkeypatch.setitem(connections.settings, "pooled", entry)
    use_site(THREADS=8)

    found = warnings()

    texts = [f"The pool of database 'pooled' has {size} connections"] * (size or 0)
    assert [one.msg.split(",")[0] for one in found] == texts[:1]
    assert all("max_size" in (one.hint or "") for one in found)


def test_w006_is_silent_with_threads_as_few_as_pooled_connections(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {**connections.settings["default"], "OPTIONS": {"pool": True}}
    monkeypatch.setitem(connections.settings, "pooled", entry)
    use_site(THREADS=4)

    assert warnings() == []
