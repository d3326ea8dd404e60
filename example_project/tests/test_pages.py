"""Each page shows its rows and emits that it was viewed."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from django.test import Client

from clinic.audit.models import AuditEntry
from clinic.laboratory.models import Analysis, Switch
from clinic.notifications.models import Notification
from clinic.records.models import HealthRecord, Patient
from clinic.statistics.models import Count
from django_gomq import emit, get_broker
from django_gomq.testing import assert_emitted, capture, live


@pytest.fixture
def record(patient: Patient) -> HealthRecord:
    return HealthRecord.objects.create(
        patient=patient, kind="visit", note="A cold.", signed_by="Dr. Osei"
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "home"),
        ("/patients/", "patients"),
        ("/statistics/", "statistics"),
        ("/audit/", "audit"),
        ("/switches/", "switches"),
        ("/dead-letters/", "dead-letters"),
    ],
)
@pytest.mark.django_db
def test_a_page_emits_that_it_was_viewed(client: Client, path: str, name: str) -> None:
    with capture():
        answer = client.get(path)

        assert_emitted("page.viewed", data={"page": name, "path": path}, count=1)
    assert answer.status_code == HTTPStatus.OK


def test_the_home_page_lists_records(client: Client, record: HealthRecord) -> None:
    page = client.get("/").content.decode()

    assert str(record) in page
    assert f"/records/{record.pk}/" in page


@pytest.mark.parametrize("path", ["/", "/records/{}/"])
def test_a_page_names_every_consumer_of_a_record(
    client: Client, record: HealthRecord, path: str
) -> None:
    page = client.get(path.format(record.pk)).content.decode()

    consumers = get_broker().consumers
    names = [one.name for one in consumers if one.subscribes_to("health.record.saved")]
    assert len(names) == 4
    assert [name for name in names if f"<code>{name}</code>" not in page] == []


@pytest.mark.django_db(transaction=True)
def test_a_dead_letter_is_shown_with_its_error(client: Client) -> None:
    with live() as bus:
        # No page: what the counting handler looks for is missing.
        emit("page.viewed", {"path": "/<b>"})
        bus.drain(60)
        page = client.get("/dead-letters/").content.decode()

    assert "statistics.pages" in page
    assert "KeyError" in page
    assert "path=/&lt;b&gt;" in page


@pytest.mark.django_db
def test_the_page_of_the_switch_comes_again_by_itself(client: Client) -> None:
    page = client.get("/switches/").content.decode()

    assert '<meta http-equiv="refresh" content="2">' in page


@pytest.mark.django_db
def test_the_statistics_page_shows_the_counts(client: Client) -> None:
    Count.objects.add("statistics.records", "visit", 7)

    page = client.get("/statistics/").content.decode()

    assert "statistics.records" in page
    assert ">7<" in page


@pytest.mark.django_db
def test_the_audit_page_shows_the_trail(client: Client) -> None:
    AuditEntry.objects.create(message_id="m-1", event="a.b", data={"city": "Porto"})

    assert "city=Porto" in client.get("/audit/").content.decode()


def test_a_record_shows_that_nothing_followed_yet(
    client: Client, record: HealthRecord
) -> None:
    page = client.get(f"/records/{record.pk}/").content.decode()

    assert "not counted yet" in page
    assert "not sent yet" in page
    assert "not analysed" in page
    assert "not written yet" in page


def test_a_record_shows_what_followed(client: Client, record: HealthRecord) -> None:
    rows = {"record_id": record.pk, "message_id": "m-1"}
    Notification.objects.create(**rows, patient_id=1, text="Told the patient.")
    Analysis.objects.create(**rows, attempt=2)
    AuditEntry.objects.create(**rows, event="health.record.saved", data={})

    Count.objects.add("statistics.records", record.kind, 7)

    page = client.get(f"/records/{record.pk}/").content.decode()

    assert "Counted: 7 of kind visit so far." in page
    assert "Told the patient." in page
    assert "Analysed at attempt 2." in page
    assert "m-1" in page


@pytest.mark.django_db
def test_the_switch_is_turned_on_its_page(client: Client) -> None:
    with capture() as events:
        answer = client.post("/switches/", {"mode": "slow"})

    assert answer.status_code == HTTPStatus.FOUND
    assert Switch.current() == "slow"
    assert events.of("page.viewed") == []
    assert "This is on" in client.get("/switches/").content.decode()


@pytest.mark.django_db
def test_the_switch_shows_what_its_consumer_does(client: Client) -> None:
    page = client.get("/switches/").content.decode()

    assert "<b>0</b>dropped" in page
    assert "<b>0</b>dead letters" in page


@pytest.mark.django_db
def test_the_switch_has_no_other_position(client: Client) -> None:
    answer = client.post("/switches/", {"mode": "broken"})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert Switch.current() == "normal"
