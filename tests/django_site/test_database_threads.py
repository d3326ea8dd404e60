from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_gomq import Message, Receipt, Retry, consumer, emit, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import wait_quiet

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Broken(Exception):
    """Raised by a handler."""


def leave_atomic(message: Message[Any]) -> None:
    transaction.atomic().__enter__()
    Record.objects.create(patient_id=1)


def leave_manual(message: Message[Any]) -> None:
    transaction.set_autocommit(False)
    Record.objects.create(patient_id=1)


async def leave_atomic_async(message: Message[Any]) -> None:
    await sync_to_async(leave_atomic)(message)


@pytest.mark.parametrize("leave", [leave_atomic, leave_manual, leave_atomic_async])
def test_a_transaction_that_a_handler_leaves_open_is_rolled_back_and_reported(
    live_site: UseSite, leave: Any, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[tuple[bool, bool, int]] = []

    def look(message: object) -> None:
        count = Record.objects.count()
        states.append((connection.in_atomic_block, connection.autocommit, count))

    async def look_async(message: object) -> None:
        await sync_to_async(look)(message)

    is_async = leave is leave_atomic_async
    consumer("page.left", name="leaves")(leave)
    consumer("page.viewed", name="looks")(look_async if is_async else look)
    live_site(THREADS=1)

    emit("page.left")
    wait_quiet()
    emit("page.viewed")
    wait_quiet()

    assert states == [(False, True, 0)]
    reports = [one for one in caplog.records if one.name == "gomq.database"]
    assert len(reports) == 1
    assert "'default'" in reports[0].getMessage()


def test_events_of_a_transaction_left_open_are_taken_back(live_site: UseSite) -> None:
    receipts: list[Receipt] = []

    def leave(message: Message[Any]) -> None:
        transaction.atomic().__enter__()
        receipts.append(emit("page.viewed"))

    consumer("page.left", name="leaves")(leave)
    live_site(THREADS=1)

    emit("page.left")
    wait_quiet()

    assert [one.reason for one in receipts] == ["rolled_back"]


@pytest.mark.parametrize(("atomic", "alias"), [(True, "default"), ("other", "other")])
def test_an_atomic_consumer_rolls_back_rows_and_events_of_a_failed_attempt(
    live_site: UseSite, atomic: Any, alias: str
) -> None:
    seen: list[int] = []

    def write(message: Message[Any]) -> None:
        assert connections[alias].in_atomic_block
        Record.objects.using(alias).create(patient_id=message.attempt)
        emit("page.written", message.attempt)
        if message.attempt == 1:
            raise Broken

    retry = Retry(attempts=2, min_delay=0.01)
    consumer("page.viewed", name="writes", atomic=atomic, retry=retry)(write)
    consumer("page.written", name="reads")(lambda message: seen.append(message.data))
    live_site()

    emit("page.viewed")
    wait_quiet()

    rows = Record.objects.using(alias).values_list("patient_id", flat=True)
    assert list(rows) == [2]
    assert seen == [2]
    assert get_broker().stats().consumers["writes"].succeeded == 1


def test_a_handler_without_atomic_keeps_what_it_wrote(live_site: UseSite) -> None:
    def write(message: Message[Any]) -> None:
        Record.objects.create(patient_id=message.attempt)
        raise Broken

    consumer("page.viewed", name="writes")(write)
    live_site()

    emit("page.viewed")
    wait_quiet()

    assert Record.objects.count() == 1


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The threads that open connections for handlers."""
    threads: list[str] = []

    def note(**signal: object) -> None:
        name = threading.current_thread().name
        # Those look what operators want, and for dead letters to be replayed.
        if name not in ("gomq-reporter", "gomq-housekeeping"):
            threads.append(name)

    connection_created.connect(note)
    yield threads
    connection_created.disconnect(note)


def test_a_connection_past_its_age_is_closed_after_the_handler(
    live_site: UseSite, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.database.KEEP_SECONDS", 0.0)
    consumer("page.viewed", name="counts")(lambda message: Record.objects.count())
    live_site(THREADS=1)

    for _ in range(2):
        emit("page.viewed")
        wait_quiet()

    assert opened == ["gomq-handler-1", "gomq-handler-1"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_connection_that_aged_between_two_messages_is_not_used_again(
    live_site: UseSite,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    used: list[BaseDatabaseWrapper] = []

    def count(message: Message[Any]) -> None:
        Record.objects.count()
        used.append(connections["default"])

    async def count_async(message: Message[Any]) -> None:
        await sync_to_async(count)(message)

    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 3600.0)
    monkeypatch.setattr("django_gomq.database.ASYNC_IDLE_SECONDS", 3600.0)
    monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 600)
    consumer("page.viewed", name="counts")(count_async if is_async else count)
    live_site(THREADS=1)

    for _ in range(3):
        emit("page.viewed")
        wait_quiet()
    used[0].close_at = 0.0  # on the monotonic clock: long ago
    emit("page.viewed")
    wait_quiet()

    assert len(used) == 4
    assert len(opened) == 2


def test_a_handler_without_queries_pays_for_no_look_at_connections(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(
        "django_gomq.database.close_old_connections",
        lambda: looked.append(threading.current_thread().name),
    )
    consumer("page.viewed", name="idles")(lambda message: None)
    live_site()

    emit("page.viewed")
    wait_quiet()

    assert looked == []
