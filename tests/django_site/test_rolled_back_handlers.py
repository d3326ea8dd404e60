"""Handlers whose transaction Django rolls back without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError

from django_gomq import Message, consumer, emit, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import wait_quiet

pytestmark = pytest.mark.django_db(transaction=True)


def catch_error() -> None:
    try:
        Record.objects.create(pk=1, patient_id=0)
    except IntegrityError:
        pass


ENDS: dict[str, Callable[[], object]] = {
    "an error is caught": catch_error,
    "the connection is closed": lambda: connection.close(),  # noqa: PLW0108 - a proxy
    "it is asked for": lambda: transaction.set_rollback(True),
}


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize("end", ENDS)
def test_their_messages_are_no_successes(
    live_site: UseSite, end: str, batch: int | None
) -> None:
    Record.objects.create(pk=1, patient_id=0)

    def write(received: Any) -> None:
        Record.objects.create(patient_id=7)
        ENDS[end]()

    subscribe: Any = consumer("page.viewed", name="writes", atomic=True, batch=batch)
    subscribe(write)
    live_site()
    emit("page.viewed")
    wait_quiet()

    stats = get_broker().stats().consumers["writes"]
    (letter,) = get_broker().dead_letters()
    assert (stats.succeeded, stats.dead_lettered) == (0, 1)
    assert letter.error_type.endswith(TransactionManagementError.__name__)
    assert "an atomic() of its own" in letter.error
    assert not Record.objects.filter(patient_id=7)


def test_what_fails_in_an_atomic_of_its_own_undoes_nothing(live_site: UseSite) -> None:
    Record.objects.create(pk=1, patient_id=0)

    @consumer("page.viewed", name="writes", atomic=True)
    def write(message: Message) -> None:
        Record.objects.create(patient_id=7)
        try:
            with transaction.atomic():
                Record.objects.create(pk=1, patient_id=0)
        except IntegrityError:
            pass

    live_site()
    emit("page.viewed")
    wait_quiet()

    assert get_broker().stats().consumers["writes"].succeeded == 1
    assert Record.objects.filter(patient_id=7).count() == 1
