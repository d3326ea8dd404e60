from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from django.apps import AppConfig
from django.core import serializers
from django.db import transaction
from django.test import TestCase

from django_gomq import ConfigurationError, emit_model_events
from django_gomq.testing import CapturedEvents
from tests.django_site import clinic
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.clinic.models import Record, Tag

pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.usefixtures("own_receivers"),
]


def note_of(record: Record) -> dict[str, Any]:
    return {"id": record.pk, "note": record.note}


def types(events: CapturedEvents) -> list[str]:
    return [message.type for message in events]


def test_each_kind_of_change_has_its_event(gomq_events: CapturedEvents) -> None:
    emit_model_events(
        "clinic.Record",
        created="clinic.record.created",
        updated="clinic.record.updated",
        saved="clinic.record.written",
        deleted="clinic.record.deleted",
    )

    record = Record.objects.create(patient_id=7)
    record.save()
    record.delete()

    assert types(gomq_events) == [
        "clinic.record.created",
        "clinic.record.written",
        "clinic.record.updated",
        "clinic.record.written",
        "clinic.record.deleted",
    ]


def test_without_data_the_event_says_the_primary_key(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(
        Record, saved="clinic.record.written", deleted="clinic.record.deleted"
    )

    record = Record.objects.create(patient_id=7)
    pk = record.pk
    record.delete()

    assert [message.data for message in gomq_events] == [{"pk": pk}, {"pk": pk}]


def test_data_is_computed_in_the_signal(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, saved="clinic.record.written", data=note_of)

    with transaction.atomic():
        record = Record.objects.create(patient_id=7, note="then")
        record.note = "now"

    gomq_events.assert_emitted("clinic.record.written", data={"note": "then"}, count=1)


def test_data_may_be_a_typed_event(gomq_events: CapturedEvents) -> None:
    emit_model_events(
        Record,
        saved="clinic.record.written",
        data=lambda record: RecordSaved(record_id=record.pk),
    )

    record = Record.objects.create(patient_id=7)

    assert gomq_events[0].data == RecordSaved(record_id=record.pk)


def test_loading_fixtures_emits_nothing(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, saved="clinic.record.written")
    text = '[{"model": "clinic.record", "pk": 9, "fields": {"patient_id": 1}}]'

    for loaded in serializers.deserialize("json", text):
        loaded.save()

    assert Record.objects.filter(pk=9).exists()
    assert list(gomq_events) == []


def test_events_wait_for_the_commit_of_the_signals_database(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, saved="clinic.record.written", data=note_of)

    with transaction.atomic():
        with transaction.atomic(using="other"):
            Record.objects.using("other").create(patient_id=1, note="other")
        Record.objects.create(patient_id=1, note="default")
        within = [message.data["note"] for message in gomq_events]

    assert within == ["other"]
    assert [one.data["note"] for one in gomq_events] == ["other", "default"]


def test_options_are_those_of_emit(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, saved="clinic.record.written", priority=9, key="k")

    Record.objects.create(patient_id=7)

    assert (gomq_events[0].priority, gomq_events[0].key) == (9, "k")


def test_registering_twice_emits_once(gomq_events: CapturedEvents) -> None:
    for _ in range(2):
        emit_model_events(
            Record, saved="clinic.record.written", deleted="clinic.record.deleted"
        )

    Record.objects.create(patient_id=7).delete()

    assert types(gomq_events) == ["clinic.record.written", "clinic.record.deleted"]


def call(make: Callable[[Record], Any], record: Record) -> Any:
    return make(record)


class Clinic(AppConfig):
    """An app whose ``ready()`` Django calls again, of another instance."""

    def __init__(self, version: int, way: str) -> None:
        super().__init__("tests.django_site.clinic", clinic)
        self.version, self.way = version, way

    def payload(self, record: Record) -> dict[str, Any]:
        return {"version": self.version}

    def bulk(self, app: object, record: Record) -> dict[str, Any]:
        return self.payload(record)

    def ready(self) -> None:
        def count(record: Record, left: int = 1) -> dict[str, Any]:
            return count(record, left - 1) if left else self.payload(record)

        def with_default(record: Record, make: Callable[[Record], Any] = count) -> Any:
            return make(record)

        ways: dict[str, Callable[[Record], Any]] = {
            "method": self.payload,
            "self": lambda record: self.payload(record),  # noqa: PLW0108
            "helper": lambda record: count(record),  # noqa: PLW0108
            "default": with_default,
            "partial": partial(self.bulk, self),
            "partial of a helper": partial(call, count),
        }
        emit_model_events(
            Record,
            saved="clinic.record.written",
            deleted="clinic.record.deleted",
            data=ways[self.way],
        )


@pytest.mark.parametrize(
    "way", ["method", "self", "helper", "default", "partial", "partial of a helper"]
)
def test_ready_called_again_has_the_newer_app_in_the_place_of_the_older(
    gomq_events: CapturedEvents, way: str
) -> None:
    for version in (1, 2):
        Clinic(version, way).ready()

    Record.objects.create(patient_id=7).delete()

    assert types(gomq_events) == ["clinic.record.written", "clinic.record.deleted"]
    assert [event.data for event in gomq_events] == [{"version": 2}] * 2


def test_functions_that_close_over_other_functions_differ_as_those_do() -> None:
    def register(make: Callable[[Record], Any]) -> None:
        emit_model_events(
            Record,
            saved="clinic.record.written",
            data=lambda record: make(record),  # noqa: PLW0108
        )

    register(lambda record: record.pk)
    with pytest.raises(ConfigurationError, match="registered before with other data"):
        register(lambda record: record.note)


def test_other_models_emit_nothing(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, saved="clinic.record.written")

    Tag.objects.create(name="urgent")

    assert list(gomq_events) == []


async def aget_data(record: Record) -> dict[str, Any]:
    return {"pk": record.pk}


def test_headers_may_be_any_mapping(gomq_events: CapturedEvents) -> None:
    headers = MappingProxyType({"shop": "7"})
    emit_model_events(Record, saved="clinic.record.written", headers=headers)

    Record.objects.create(patient_id=7)

    assert gomq_events[0].headers == {"shop": "7"}


def test_data_may_come_from_a_built_in(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, saved="clinic.record.written", data=str)

    record = Record.objects.create(patient_id=7)

    assert [one.data for one in gomq_events] == [f"record {record.pk}"]


@pytest.mark.parametrize(
    ("model", "options", "complaint"),
    [
        ("clinic.Nope", {"saved": "a.b"}, "clinic.Nope.*app_label.ModelName"),
        ("nope.Record", {"saved": "a.b"}, "app_label.ModelName"),
        ("Record", {"saved": "a.b"}, "names no app: write 'app_label.ModelName'"),
        (Record, {}, "names no event"),
        (Record, {"saved": "A B"}, "is not an event type"),
        (Record, {"m2m": {"tags": "A B"}}, "is not an event type"),
        (Record, {"m2m": {"nope": "a.b"}}, "'nope' is no many-to-many.*are tags"),
        (Tag, {"m2m": {"record": "a.b"}}, "'record' is no many-to-many.*are records"),
        (Record, {"m2m": {"note": "a.b"}}, "'note' is no many-to-many field"),
        (Record, {"saved": "a.b", "prioritty": 9}, "mean priority.*created, .*strict"),
        (Record, {"saved": "a.b", "created": "a.b"}, "would be two events 'a.b'"),
        (Record, {"saved": "a.b", "updated": "a.b"}, "would be two events 'a.b'"),
        (Record, {"create": "a.b"}, "no option create; did you mean created"),
        (Record, {"saved": "a.b", "xyz": 9}, "no option xyz; there are created"),
        (Record, {"saved": "a.b", "priority": 99}, "priority is 99"),
        (Record, {"saved": "a.b", "delay": -1}, "delay is -1"),
        (Record, {"saved": "a.b", "headers": {"a": 1}}, "headers"),
        (Record, {"saved": "a.b", "headers": "a"}, "headers"),
        (Record, {"saved": "a.b", "timeout": "long"}, "timeout is 'long'"),
        (Record, {"saved": "a.b", "data": {"a": 1}}, "data is {'a': 1}"),
        (Record, {"saved": "a.b", "data": lambda: 1}, "called with the instance"),
        (Record, {"saved": "a.b", "data": lambda a, b: 1}, "called with the instance"),
        (Record, {"saved": "a.b", "data": aget_data}, "data is an async function"),
    ],
)
def test_a_wrong_registration_is_told_when_it_is_made(
    model: Any, options: Any, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        emit_model_events(model, **options)


class InATestCase(TestCase):
    def test_events_of_the_test_itself_are_captured(self) -> None:
        from django_gomq.testing import capture

        emit_model_events(Record, saved="clinic.record.written")

        with capture() as events:
            Record.objects.create(patient_id=7)

        events.assert_emitted("clinic.record.written", count=1)
