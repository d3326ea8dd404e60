"""Each consumer writes one row, or counts once, for each message."""

from __future__ import annotations

import inspect

import pytest
from asgiref.sync import async_to_sync

from clinic.audit.consumers import write_trail
from clinic.audit.models import AuditEntry
from clinic.notifications.consumers import notify
from clinic.notifications.models import Notification
from clinic.statistics.consumers import CountPatients, count_page, count_record
from clinic.statistics.models import Count
from tests.messages import plain, saved

pytestmark = pytest.mark.django_db


def counted(consumer: str) -> dict[str, int]:
    rows = Count.objects.filter(consumer=consumer)
    return {count.name: count.value for count in rows}


def test_records_are_counted_by_kind() -> None:
    for record_id in (1, 2, 3):
        count_record(saved(record_id))

    assert counted("statistics.records") == {"visit": 3}


def test_pages_are_counted_by_name() -> None:
    for name in ("home", "home", "audit"):
        count_page(plain("page.viewed", page=name, path="/"))

    assert counted("statistics.pages") == {"home": 2, "audit": 1}


def test_patients_are_counted_by_what_happened_to_them() -> None:
    handler = CountPatients()

    for kind in ("patient.created", "patient.created", "patient.deleted"):
        handler.handle(plain(kind, patient_id=1))

    assert counted("statistics.patients") == {
        "patient.created": 2,
        "patient.deleted": 1,
    }


def test_a_patient_is_notified_once_however_often_it_is_tried() -> None:
    message = saved(5)

    async_to_sync(notify)(message)
    async_to_sync(notify)(message)

    notification = Notification.objects.get()
    assert (notification.patient_id, notification.record_id) == (7, 5)
    assert "visit" in notification.text


def test_notifications_are_written_by_an_async_handler() -> None:
    assert inspect.iscoroutinefunction(notify)


def test_a_batch_becomes_audit_entries() -> None:
    batch = [
        plain("health.record.saved", record_id=1),
        plain("patient.created", patient_id=2),
    ]

    write_trail(batch)

    entries = {entry.event: entry for entry in AuditEntry.objects.all()}
    assert entries["health.record.saved"].record_id == 1
    assert entries["patient.created"].record_id is None
    assert entries["patient.created"].data == {"patient_id": 2}


def test_a_batch_that_comes_again_adds_nothing() -> None:
    first, second = plain("patient.created", a=1), plain("patient.deleted", a=2)

    write_trail([first])
    write_trail([first, second])

    assert AuditEntry.objects.count() == 2
