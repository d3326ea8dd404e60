"""Whose changes count for a model: proxies, children, abstract and unmanaged models."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import models
from pytest_django import Settings

from django_gomq import ConfigurationError, emit_model_events
from django_gomq.testing import CapturedEvents
from tests.django_site.clinic.models import (
    Building,
    Childless,
    Dated,
    Exam,
    Hospital,
    Label,
    Landmark,
    OldLabel,
    Record,
    Scan,
    TeachingHospital,
    Visit,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("own_receivers")]

CHANGES: dict[str, Any] = {
    "created": "clinic.building.created",
    "updated": "clinic.building.updated",
    "deleted": "clinic.building.deleted",
}


def changed(events: CapturedEvents) -> list[tuple[str, Any]]:
    return [(one.type.rpartition(".")[2], one.data["pk"]) for one in events]


@pytest.mark.parametrize(
    ("registered", "used"),
    [
        (Building, Building),
        (Building, Landmark),
        (Building, Hospital),
        (Building, TeachingHospital),
        (Landmark, Landmark),
        (Hospital, Hospital),
        (Hospital, TeachingHospital),
        (Dated, Exam),
        (Dated, Scan),
        (Dated, Visit),
        (Exam, Scan),
        (Label, Label),
        (OldLabel, OldLabel),
    ],
)
def test_each_instance_of_the_model_counts_once_for_each_change(
    gomq_events: CapturedEvents,
    registered: type[models.Model],
    used: type[models.Model],
) -> None:
    emit_model_events(registered, **CHANGES)

    instance = used._base_manager.create()
    pk = instance.pk
    instance.save()
    instance.delete()

    assert changed(gomq_events) == [("created", pk), ("updated", pk), ("deleted", pk)]


@pytest.mark.parametrize(
    ("registered", "used"),
    [(Landmark, Building), (Hospital, Building), (Hospital, Landmark), (Scan, Exam)],
)
def test_what_is_no_instance_of_the_model_does_not_count(
    gomq_events: CapturedEvents,
    registered: type[models.Model],
    used: type[models.Model],
) -> None:
    emit_model_events(registered, **CHANGES)

    instance = used._base_manager.create()
    instance.save()
    instance.delete()

    assert changed(gomq_events) == []


def test_a_parent_that_is_kept_was_not_deleted(gomq_events: CapturedEvents) -> None:
    emit_model_events(Building, deleted="clinic.building.deleted")
    hospital = Hospital._base_manager.create()

    hospital.delete(keep_parents=True)

    assert Building._base_manager.exists()
    assert changed(gomq_events) == []


@pytest.mark.parametrize("models_", [(Building, Hospital), (Hospital, Building)])
def test_a_parent_and_its_child_may_have_one_event(
    gomq_events: CapturedEvents, models_: tuple[type[models.Model], ...]
) -> None:
    for model in models_:
        emit_model_events(model, created="clinic.building.created")

    Hospital._base_manager.create()
    Building._base_manager.create()

    assert len(gomq_events) == 2


def test_children_share_the_many_to_many_fields_of_their_parent(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Building, m2m={"labels": "clinic.building.labelled"})
    emit_model_events(Hospital, m2m={"labels": "clinic.hospital.labelled"})
    label: Any = Label._base_manager.create(name="old")
    building, hospital = (
        Building._base_manager.create(),
        Hospital._base_manager.create(),
    )

    building.labels.add(label)
    hospital.labels.add(label)
    label.buildings.clear()

    told = [(one.type.split(".")[1], one.data["pk"]) for one in gomq_events]
    assert told == [
        ("building", building.pk),
        ("building", hospital.pk),
        ("hospital", hospital.pk),
        ("building", building.pk),
        ("building", hospital.pk),
        ("hospital", hospital.pk),
    ]


def test_an_abstract_model_has_the_many_to_many_fields_of_those_who_inherit(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(
        Dated,
        m2m={"labels": "clinic.labelled"},
        data=lambda dated: type(dated).__name__,
    )
    label = Label._base_manager.create(name="urgent")

    for model in (Exam, Visit, Scan):
        model._base_manager.create().labels.add(label)

    assert [one.data for one in gomq_events] == ["Exam", "Visit", "Scan"]


def test_a_swapped_out_model_is_refused_with_the_setting_to_name(
    settings: Settings,
) -> None:
    settings.AUTH_USER_MODEL = "clinic.Record"

    for model in ("auth.User", User):
        with pytest.raises(
            ConfigurationError,
            match="AUTH_USER_MODEL is 'clinic.Record': name settings.AUTH_USER_MODEL",
        ):
            emit_model_events(model, created="user.created")

    emit_model_events(settings.AUTH_USER_MODEL, created="user.created")


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Childless, "Childless is abstract, and no model inherits from it"),
        ("clinic.Childless", "There are .*clinic.Record.*of an abstract model give"),
        ("clinic.Recrod", "There are .*clinic.Record"),
        (models.Model, "is no model"),
        (Record.objects, "is no model"),
        (7, "is no model"),
        (None, "is no model"),
        (Record.tags.through, "use m2m= on the model that has the field"),
    ],
)
def test_what_no_signal_will_tell_of_is_refused(model: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        emit_model_events(model, created="a.b")


def test_before_models_are_loaded_it_says_where_to_call_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django.apps.apps.models_ready", False)

    with pytest.raises(ConfigurationError, match=r"AppConfig.ready\(\)"):
        emit_model_events("clinic.Record", created="a.b")
