from __future__ import annotations

from typing import Any

import django
import pytest
from django.core import serializers
from django.db.models.signals import m2m_changed

from django_gomq import emit_model_events
from django_gomq.testing import CapturedEvents
from tests.django_site.clinic.models import Building, Record, Tag

pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.usefixtures("own_receivers"),
]


def note_of(record: Record) -> dict[str, Any]:
    return {"id": record.pk, "note": record.note}


if django.VERSION >= (6, 1):  # before, the signal does not say raw

    def test_loading_fixtures_emits_nothing_of_their_many_to_many_fields(
        gomq_events: CapturedEvents,
    ) -> None:
        emit_model_events(Record, m2m={"tags": "clinic.record.tagged"})
        fields = {"patient_id": 1, "tags": [Tag.objects.create(name="urgent").pk]}
        objects = [{"model": "clinic.record", "pk": 9, "fields": fields}]

        for loaded in serializers.deserialize("python", objects):
            loaded.save()

        assert Record.objects.get(pk=9).tags.exists()
        assert list(gomq_events) == []


def test_a_signal_that_says_raw_is_skipped(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, m2m={"tags": "clinic.record.tagged"})
    record = Record.objects.create(patient_id=7)
    said = {"instance": record, "action": "post_add", "pk_set": {1}, "model": Tag}

    for raw in (True, False):
        m2m_changed.send(
            Record.tags.through, **said, reverse=False, using="default", raw=raw
        )

    assert len(gomq_events) == 1


def test_a_many_to_many_change_is_an_event_of_its_instance(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, m2m={"tags": "clinic.record.tagged"}, data=note_of)
    record = Record.objects.create(patient_id=7, note="mine")
    tag = Tag.objects.create(name="urgent")

    counts = []
    for change in (record.tags.add, record.tags.remove, record.tags.add):
        change(tag)
        counts.append(len(gomq_events))
    record.tags.clear()

    assert [*counts, len(gomq_events)] == [1, 2, 3, 4]
    assert {message.data["id"] for message in gomq_events} == {record.pk}


def test_a_many_to_many_change_that_changes_nothing_is_no_event(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, m2m={"tags": "clinic.record.tagged"})
    record = Record.objects.create(patient_id=7)
    tag = Tag.objects.create(name="urgent")
    record.tags.add(tag)

    record.tags.add(tag)

    assert len(gomq_events) == 1


def test_a_change_from_the_far_side_is_an_event_for_each_instance(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, m2m={"tags": "clinic.record.tagged"}, data=note_of)
    tag = Tag.objects.create(name="urgent")
    first, second = (
        Record.objects.create(patient_id=1, note=note) for note in ("first", "second")
    )

    tag.records.add(first, second)
    tag.records.remove(first)
    tag.records.clear()

    notes = [message.data["note"] for message in gomq_events]
    assert notes == ["first", "second", "first", "second"]


def test_an_accessor_from_the_other_side_tells_of_the_rows_of_its_own_model(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Tag, m2m={"records": "clinic.tag.used"})
    Tag.objects.create(name="first")
    tag, other = Tag.objects.create(name="second"), Tag.objects.create(name="third")
    record = Record.objects.create(patient_id=7)

    tag.records.add(record)
    tag.records.remove(record)
    record.tags.add(tag, other)
    record.tags.remove(other)
    record.tags.clear()

    told = [one.data["pk"] for one in gomq_events]
    assert told == [tag.pk, tag.pk, tag.pk, other.pk, other.pk, tag.pk]


def test_a_symmetrical_field_tells_of_both_ends(gomq_events: CapturedEvents) -> None:
    emit_model_events(Building, m2m={"neighbours": "clinic.building.joined"})
    one, other = (
        Building._base_manager.create(name="one"),
        Building._base_manager.create(),
    )

    one.neighbours.add(other)
    other.neighbours.remove(one)
    one.neighbours.add(other)
    one.neighbours.clear()

    told = [event.data["pk"] for event in gomq_events]
    assert told == [
        *(one.pk, other.pk),
        *(other.pk, one.pk),
        *(one.pk, other.pk),
        *(other.pk, one.pk),
    ]


@pytest.mark.parametrize(
    ("field", "changed"), [("feeds", "source"), ("fed_by", "target")]
)
def test_a_field_to_its_own_model_tells_of_the_side_that_was_asked_for(
    gomq_events: CapturedEvents, field: str, changed: str
) -> None:
    emit_model_events(Building, m2m={field: "clinic.building.fed"})
    source: Any = Building._base_manager.create(name="s")
    target: Any = Building._base_manager.create(name="t")

    source.feeds.add(target)
    target.fed_by.remove(source)

    expected = {"source": source.pk, "target": target.pk}[changed]
    assert [event.data["pk"] for event in gomq_events] == [expected] * 2
