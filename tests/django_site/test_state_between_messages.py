"""What one delivery leaves on its thread, which the next one must not find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import override_settings
from django.urls import get_urlconf, set_urlconf
from django.utils import timezone, translation

from django_gomq import Message, consumer, emit, emit_many, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import wait_quiet

pytestmark = pytest.mark.django_db(transaction=True)

State = dict[str, object]

_variable: ContextVar[str] = ContextVar("variable", default="")
_local = Local()


def change_state() -> None:
    translation.activate("de")
    timezone.activate("Pacific/Auckland")
    set_urlconf("nowhere.urls")
    _variable.set("changed")
    _local.value = "changed"


def read_state() -> State:
    return {
        "language": translation.get_language(),
        "timezone": timezone.get_current_timezone_name(),
        "urlconf": get_urlconf(),
        "variable": _variable.get(),
        "local": getattr(_local, "value", ""),
    }


def register(event: str, kind: str, handler: Callable[[], object]) -> None:
    """Register a handler that is called for each message, or batch of one."""

    async def handle_async(message: Message[Any]) -> None:
        handler()
        await asyncio.sleep(0)

    async def handle_in_thread(message: Message[Any]) -> None:
        await sync_to_async(handler)()

    handlers: dict[str, Any] = {
        "each": lambda message: handler(),
        "batch": lambda messages: handler(),
        "async": handle_async,
        "in thread": handle_in_thread,
    }
    options: dict[str, Any] = {"batch": 1} if kind == "batch" else {}
    consumer(event, name=event, **options)(handlers[kind])


@pytest.fixture(params=["each", "batch", "async", "in thread"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_that_a_handler_activates_reaches_the_next_delivery(
    live_site: UseSite, kind: str, fails: bool
) -> None:
    states: list[State] = []

    def change() -> None:
        change_state()
        if fails:
            raise ValueError

    register("page.changed", kind, change)
    register("page.viewed", kind, lambda: states.append(read_state()))
    live_site(THREADS=1)
    for event in ("page.viewed", "page.changed", "page.viewed"):
        emit(event)
        wait_quiet()

    assert len(states) == 2
    assert states[1] == states[0]


def test_nothing_reaches_the_next_delivery_that_a_thread_takes_along(
    live_site: UseSite, kind: str
) -> None:
    states: list[State] = []

    def read_and_change() -> None:
        states.append(read_state())
        change_state()

    register("page.viewed", kind, read_and_change)
    live_site(THREADS=1)
    emit_many([("page.viewed", number) for number in range(200)])
    wait_quiet()

    assert states == [states[0]] * 200
    assert states[0]["variable"] == ""


def test_nothing_that_the_emitting_request_activates_reaches_its_handler(
    live_site: UseSite, kind: str
) -> None:
    states: list[State] = []
    register("page.viewed", kind, lambda: states.append(read_state()))
    live_site(THREADS=1)
    emit("page.viewed")
    wait_quiet()

    with translation.override("de"), timezone.override("Pacific/Auckland"):
        emit("page.viewed")
        wait_quiet()

    assert states[1] == states[0]


@pytest.mark.parametrize("kind", ["each", "batch", "in thread"], indirect=True)
@override_settings(DEBUG=True)
def test_statements_logged_for_debugging_do_not_pile_up(
    live_site: UseSite, kind: str
) -> None:
    lengths: list[int] = []

    def count() -> None:
        Record.objects.count()
        lengths.append(len(connection.queries))

    register("page.viewed", kind, count)
    live_site(THREADS=1)
    for _ in range(5):
        emit("page.viewed")
        wait_quiet()

    assert lengths == [1] * 5
    assert get_broker().stats().consumers["page.viewed"].succeeded == 5
