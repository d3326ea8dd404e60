"""What data= of a model's events may be, may ask for, and may do wrong."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_delete
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext

from django_gomq import (
    ConfigurationError,
    NotRunningError,
    emit_model_events,
    emit_on_signal,
)
from django_gomq.site import brokers
from django_gomq.testing import CapturedEvents
from tests.django_site.clinic.models import Label, Record, Tag
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Undo, wait_quiet

pytestmark = pytest.mark.usefixtures("own_receivers")
in_a_database = pytest.mark.django_db(transaction=True, databases=["default", "other"])

EVENT = "clinic.record.written"


def values_of(record: Record) -> dict[str, Any]:
    return {"patient": record.patient_id, "note": record.note}


# ------------------------------------------------------- values that are not there


@in_a_database
def test_an_expression_that_was_saved_is_the_value_it_became(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, updated=EVENT, data=values_of)
    record = Record.objects.create(patient_id=5, note="a")

    record.patient_id = F("patient_id") - 1
    record.note = Concat("note", Value("b"))
    record.save()

    assert [one.data for one in gomq_events] == [{"patient": 4, "note": "ab"}]
    assert Record.objects.values_list("patient_id", "note").get() == (4, "ab")


@in_a_database
def test_an_expression_on_another_database_is_read_there(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, updated=EVENT, data=values_of)
    Record.objects.create(pk=1, patient_id=50)
    record = Record.objects.using("other").create(pk=1, patient_id=5)

    record.patient_id = F("patient_id") + 1
    record.save()

    assert gomq_events[0].data["patient"] == 6


@in_a_database
def test_without_data_nothing_is_read(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, updated=EVENT)
    record = Record.objects.create(patient_id=5)
    record.patient_id = F("patient_id") - 1

    with CaptureQueriesContext(connection) as queries:
        record.save()

    assert [one["sql"].split()[0] for one in queries.captured_queries] == ["UPDATE"]
    assert len(gomq_events) == 1


@in_a_database
@pytest.mark.parametrize("change", ["save", "delete"])
def test_a_deferred_field_is_loaded(gomq_events: CapturedEvents, change: str) -> None:
    emit_model_events(Record, updated=EVENT, deleted=EVENT, data=values_of)
    Record.objects.create(patient_id=5, note="deferred")

    getattr(Record.objects.only("patient_id").get(), change)()

    assert [one.data["note"] for one in gomq_events] == ["deferred"]


@in_a_database
def test_the_data_of_a_deletion_are_made_before_it(gomq_events: CapturedEvents) -> None:
    emit_model_events(
        Record,
        deleted=EVENT,
        data=lambda one: [one.pk, *one.tags.values_list("name", flat=True)],
    )
    record = Record.objects.create(patient_id=5)
    record.tags.add(Tag.objects.create(name="urgent"))
    pk = record.pk

    record.delete()

    assert record.pk is None
    assert [one.data for one in gomq_events] == [[pk, "urgent"]]


@in_a_database
def test_a_queryset_tells_of_each_row_that_it_deletes(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, deleted=EVENT, data=values_of)
    for patient in (1, 2, 3):
        Record.objects.create(patient_id=patient)

    Record.objects.filter(patient_id__lt=3).delete()

    assert sorted(one.data["patient"] for one in gomq_events) == [1, 2]


@in_a_database
def test_a_deletion_that_fails_emits_nothing(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, deleted=EVENT, data=values_of)
    record = Record.objects.create(patient_id=5)

    def fail(**signal: Any) -> None:
        raise Undo

    with pytest.raises(Undo):
        with_receiver(fail, record.delete)
    left = len(gomq_events)
    record.note = "changed"
    record.delete()

    assert left == 0
    assert [one.data["note"] for one in gomq_events] == ["changed"]


def with_receiver(receiver: Callable[..., None], call: Callable[[], object]) -> None:
    receivers = post_delete.receivers
    post_delete.receivers = []
    post_delete.connect(receiver, sender=Record)
    post_delete.receivers += receivers
    try:
        call()
    finally:
        post_delete.receivers = receivers
        post_delete.sender_receivers_cache.clear()


@in_a_database
def test_a_deletion_that_somebody_else_tells_of_counts_too(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, deleted=EVENT, data=values_of)
    record = Record.objects.create(patient_id=5)

    post_delete.send(Record, instance=record, using="default", origin=record)

    assert [one.data["patient"] for one in gomq_events] == [5]


# --------------------------------------------------------------------- what fails


def raise_(record: Record) -> None:
    raise ValueError("no good\nsecond line")


def query_what_is_not_there(record: Record) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")


def save_what_is_there_already(record: Record) -> None:
    Label._base_manager.create(pk=1, name="again")


FAILURES: dict[str, tuple[Callable[[Record], Any], str]] = {
    "raises": (raise_, "ValueError: no good\\nsecond line"),
    "is a model": (lambda record: record, "emit its pk"),
    "has no JSON form": (lambda record: {"a": object()}, "EncodeError"),
    "is too large": (lambda record: "x" * 300_000, "MessageTooLargeError"),
    "fails at the database": (query_what_is_not_there, "OperationalError"),
    "breaks its own rows": (save_what_is_there_already, "IntegrityError"),
}


@in_a_database
@pytest.mark.parametrize("change", ["save", "add", "delete"])
@pytest.mark.parametrize("is_atomic", [False, True])
@pytest.mark.parametrize("kind", FAILURES)
def test_data_that_fail_leave_the_row_and_the_transaction_as_they_are(
    use_site: UseSite,
    gomq_events: CapturedEvents,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    is_atomic: bool,
    change: str,
) -> None:
    data, reason = FAILURES[kind]
    use_site()
    emit_model_events(
        Record, updated=EVENT, deleted=EVENT, m2m={"tags": EVENT}, data=data
    )
    record = Record.objects.create(patient_id=5)
    pk, tag = record.pk, Tag.objects.create(name="urgent")
    Label._base_manager.create(pk=1, name="one")
    record.note = "changed"
    changes: dict[str, Callable[[], object]] = {
        "save": record.save,
        "add": lambda: record.tags.add(tag),
        "delete": record.delete,
    }

    with transaction.atomic() if is_atomic else nullcontext():
        changes[change]()
        Record.objects.create(patient_id=6)

    wait_quiet()
    rows = Record.objects.filter(pk=pk)
    if change == "save":
        assert rows.get().note == "changed"
    elif change == "add":
        assert tag.records.count() == 1
    else:
        assert not rows.exists()
    assert Record.objects.filter(patient_id=6).exists()
    assert list(gomq_events) == []
    (line,) = [one for one in caplog.records if one.name == "gomq.emit"]
    assert line.levelname == "ERROR"
    told = line.getMessage()
    assert told.startswith(f"Event {EVENT} of clinic.Record {pk} could not be made")
    assert reason in told
    queue = brokers["default"].stats().queues[EVENT]
    assert queue.refused == {"not_made": 1}


def test_a_failed_query_of_data_breaks_no_transaction_of_postgresql(
    postgres_database: str, live_site: UseSite
) -> None:
    live_site()
    emit_model_events(
        Record,
        created=EVENT,
        data=lambda record: list(Label._base_manager.using(postgres_database)),
    )

    with transaction.atomic(using=postgres_database):
        for patient in (1, 2):
            Record.objects.using(postgres_database).create(patient_id=patient)

    assert Record.objects.using(postgres_database).count() == 2
    assert brokers["default"].stats().queues[EVENT].refused == {"not_made": 2}


def test_data_that_cannot_ask_leave_the_transaction_of_their_caller_alone(
    postgres_database: str, live_site: UseSite
) -> None:
    live_site()
    done, connection = list[str](), connections[postgres_database]
    failed = Signal()
    emit_on_signal(
        failed,
        EVENT,
        data=lambda sender, **_: Record.objects.using(postgres_database).count(),
    )

    with pytest.raises(DatabaseError), transaction.atomic(using=postgres_database):
        Record.objects.using(postgres_database).create(patient_id=1)
        transaction.on_commit(lambda: done.append("committed"), postgres_database)
        with suppress(DatabaseError):
            Record.objects.using(postgres_database).extra(where=["nothing"]).count()
        failed.send(None)  # no savepoint can be made any more
        is_open = connection.in_atomic_block
        Record.objects.using(postgres_database).create(patient_id=2)

    assert is_open
    assert not Record.objects.using(postgres_database).exists()
    assert done == []


@in_a_database
def test_data_that_ask_nothing_make_no_query(gomq_events: CapturedEvents) -> None:
    emit_model_events(Record, saved=EVENT, data=values_of)

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        Record.objects.create(patient_id=5)

    assert [one["sql"].split()[0] for one in queries.captured_queries] == ["INSERT"]
    assert len(gomq_events) == 1


@in_a_database
def test_what_strict_raises_is_raised_by_the_save(live_site: UseSite) -> None:
    emit_model_events(Record, saved=EVENT, strict=True)
    live_site(BROKERS={"default": {"RUN": "never"}})

    with pytest.raises(NotRunningError):
        Record.objects.create(patient_id=5)

    assert Record.objects.exists()


@in_a_database
def test_without_the_app_data_that_fail_fail_nobody(own_registry: None) -> None:
    emit_model_events(Record, saved=EVENT, data=raise_)
    brokers.set_up(None)

    Record.objects.create(patient_id=5)

    assert Record.objects.exists()


# ------------------------------------------------------------------ registered twice


def made_by(number: int) -> Callable[[Record], int]:
    return lambda record: number


class Maker:
    def make(self, record: Record) -> int:
        return record.pk

    def __call__(self, record: Record) -> int:
        return record.pk


MAKER = Maker()
SAME: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "function": lambda: values_of,
    "closure": lambda: made_by(1),
    "partial": lambda: functools.partial(made_by(1)),
    "object": lambda: MAKER,
    "method": lambda: MAKER.make,
    "class": lambda: str,
}


@in_a_database
@pytest.mark.parametrize("kind", SAME)
def test_the_same_again_is_one_event(gomq_events: CapturedEvents, kind: str) -> None:
    for _ in range(2):
        data = SAME[kind]()
        emit_model_events(Record, saved=EVENT, deleted=EVENT, data=data, priority=7)

    Record.objects.create(patient_id=5).delete()

    assert len(gomq_events) == 2


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "data, then none": ({"data": values_of}, {}),
    "none, then data": ({}, {"data": values_of}),
    "functions": ({"data": values_of}, {"data": raise_}),
    "function and object": ({"data": values_of}, {"data": MAKER}),
    "closures": ({"data": made_by(1)}, {"data": made_by(2)}),
    "methods": ({"data": Maker().make}, {"data": Maker().make}),
    "partials": (
        {"data": functools.partial(made_by(1))},
        {"data": functools.partial(made_by(2))},
    ),
    "options": ({"priority": 1}, {"priority": 2}),
}


def test_a_module_that_is_loaded_again_registers_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clinic_receivers.py").write_text(
        "from django_gomq import emit_model_events\n"
        "def data(record):\n    return record.pk\n"
        f"emit_model_events('clinic.Record', saved={EVENT!r}, data=data)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("clinic_receivers")

    importlib.reload(module)

    del sys.modules["clinic_receivers"]


@pytest.mark.parametrize("action", ["created", "updated", "saved", "deleted", "m2m"])
@pytest.mark.parametrize("kind", DIFFERENT)
def test_the_same_event_with_other_data_or_options_is_refused_where_it_stands(
    action: str, kind: str
) -> None:
    first, second = DIFFERENT[kind]
    event: Any = {action: {"tags": EVENT} if action == "m2m" else EVENT}
    emit_model_events(Record, **event, **first)

    with pytest.raises(ConfigurationError, match="registered before") as caught:
        emit_model_events(Record, **event, **second)
    if kind == "options":
        text = "(no data, priority=1), and is again (no data, priority=2)"
        assert text in str(caught.value)


@in_a_database
def test_a_registration_that_is_refused_leaves_nothing_behind(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, deleted=EVENT, data=values_of)

    with pytest.raises(ConfigurationError):
        emit_model_events(Record, created="clinic.record.created", deleted=EVENT)
    Record.objects.create(patient_id=5)

    assert list(gomq_events) == []


@in_a_database
def test_other_events_of_the_same_action_are_all_emitted(
    gomq_events: CapturedEvents,
) -> None:
    emit_model_events(Record, created="clinic.record.created", data=values_of)
    emit_model_events(Record, created="audit.record.created")

    Record.objects.create(patient_id=5)

    types: list[str] = [one.type for one in gomq_events]
    assert types == ["clinic.record.created", "audit.record.created"]
