"""Async handlers share one connection: whose transaction is whose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from django_gomq import Message, consumer, emit, emit_many, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

WRITTEN = 2
Block = Callable[[Any], Any]


class Held:
    """An async handler that waits between its two halves until it is released."""

    def __init__(self, begin: Block | None = None, end: Block | None = None) -> None:
        self.entered = Event()
        self.release = Event()
        self._halves = begin, end

    async def __call__(self, message: Message[Any]) -> None:
        begin, end = self._halves
        if begin is not None:
            await sync_to_async(begin)(message)
        self.entered.set()
        while not self.release.is_set():  # noqa: ASYNC110 - set by a thread
            await asyncio.sleep(0.001)
        if end is not None:
            await sync_to_async(end)(message)


async def write(message: Message[Any]) -> None:
    await Record.objects.acreate(patient_id=0, note="neighbour")


def notes() -> set[str]:
    return set(Record.objects.values_list("note", flat=True))


def atomic_over_an_await() -> Held:
    block = transaction.atomic()

    def begin(message: Message[Any]) -> None:
        block.__enter__()
        Record.objects.create(patient_id=1, note="first")

    def end(message: Message[Any]) -> None:
        Record.objects.create(patient_id=1, note="second")
        block.__exit__(None, None, None)

    return Held(begin, end)


def manual_over_an_await() -> Held:
    def begin(message: Message[Any]) -> None:
        transaction.set_autocommit(False)
        Record.objects.create(patient_id=1, note="first")

    def end(message: Message[Any]) -> None:
        Record.objects.create(patient_id=1, note="second")
        transaction.commit()
        transaction.set_autocommit(True)

    return Held(begin, end)


@pytest.mark.parametrize("make", [atomic_over_an_await, manual_over_an_await])
def test_a_transaction_over_an_await_is_not_ended_by_an_async_neighbour(
    live_site: UseSite, make: Callable[[], Held], caplog: pytest.LogCaptureFixture
) -> None:
    holder = make()
    consumer("page.held", name="holds")(holder)
    consumer("page.viewed", name="writes")(write)
    live_site()

    emit("page.held")
    assert holder.entered.wait(SECONDS)
    emit_many([("page.viewed", 1), ("page.viewed", 2)])
    wait_until(lambda: get_broker().stats().consumers["writes"].succeeded == WRITTEN)
    holder.release.set()
    wait_quiet()

    assert notes() == {"first", "second", "neighbour"}
    said = [one.getMessage() for one in caplog.records if one.name == "gomq.database"]
    assert len(said) == 1
    assert "'default' is open over an await" in said[0]


def test_a_transaction_left_open_ends_with_the_last_that_may_have_begun_it(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    beside, later, states = Held(), Held(), list[bool]()

    async def leave(message: Message[Any]) -> None:
        await sync_to_async(transaction.atomic().__enter__)()
        await Record.objects.acreate(patient_id=1, note="left")

    async def look(message: Message[Any]) -> None:
        states.append(await sync_to_async(lambda: connection.in_atomic_block)())

    handlers: list[tuple[str, Any]] = [
        ("page.beside", beside),
        ("page.left", leave),
        ("page.later", later),
        ("page.viewed", look),
    ]
    for event, handler in handlers:
        consumer(event, name=event)(handler)
    live_site()

    emit("page.beside")
    assert beside.entered.wait(SECONDS)
    emit("page.left")
    wait_until(lambda: get_broker().stats().consumers["page.left"].succeeded)
    emit("page.later")
    assert later.entered.wait(SECONDS)
    emit("page.viewed")
    wait_until(lambda: states == [True], "the transaction to be seen")
    beside.release.set()
    wait_until(lambda: get_broker().stats().consumers["page.beside"].succeeded)
    emit("page.viewed")
    wait_until(lambda: len(states) == 2, "a second look")
    later.release.set()
    wait_quiet()

    assert states == [True, False]
    assert notes() == set()
    assert "it is rolled back" in caplog.text
