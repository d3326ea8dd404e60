from __future__ import annotations

import logging

import pytest

from django_gomq import Message, NoConsumerError, emit, get_broker
from tests.django_site.clinic.events import RecordRead
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen
from tests.django_site.waiting import wait_until


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    wait_until(get_broker().hooks.flush, "the hooks")
    return [one.getMessage() for one in caplog.records if one.name == "gomq.emit"]


def test_a_type_without_a_consumer_is_warned_of_once_and_counted(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    site = live_site()

    with caplog.at_level(logging.WARNING):
        receipts = [emit("page.viewed"), emit("page.viewed")]

    assert [one.reason for one in receipts] == ["no_consumer", "no_consumer"]
    assert len(warnings_of(caplog)) == 1
    assert "page.viewed has no consumer" in warnings_of(caplog)[0]
    assert (
        "GOMQ['AUTODISCOVER'] names (consumers of each app)" in warnings_of(caplog)[0]
    )
    assert site.brokers["default"].stats().queues["page.viewed"].unconsumed == 2


def test_a_misspelt_event_is_told_with_what_it_may_mean(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    listen("page.viewed")
    live_site()

    with caplog.at_level(logging.WARNING):
        emit("page.veiwed")

    assert warnings_of(caplog)[0].endswith("; did you mean page.viewed?")


def test_no_consumer_can_raise(live_site: UseSite) -> None:
    live_site(NO_CONSUMER="raise")

    with pytest.raises(NoConsumerError) as caught:
        emit("page.viewed")

    assert caught.value.event == "page.viewed"


def test_no_consumer_can_be_ignored(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    live_site(NO_CONSUMER="ignore")

    receipt = emit("page.viewed", strict=True)

    assert receipt.reason == "no_consumer"
    assert warnings_of(caplog) == []


def test_an_event_class_overrules_the_setting(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    site = live_site(NO_CONSUMER="raise")

    receipt = emit(RecordRead(record_id=1))

    assert not receipt
    assert warnings_of(caplog) == []
    assert site.brokers["default"].stats().queues["clinic.record.read"].unconsumed == 1


def test_a_strict_emit_raises_where_nobody_consumes(live_site: UseSite) -> None:
    live_site()

    with pytest.raises(NoConsumerError):
        emit("page.viewed", strict=True)


def test_on_refused_raise_is_not_about_missing_consumers(live_site: UseSite) -> None:
    live_site(BROKERS={"default": {"ON_REFUSED": "raise"}})

    assert emit("page.viewed").reason == "no_consumer"


def test_the_broker_itself_always_raises(live_site: UseSite) -> None:
    broker = live_site(NO_CONSUMER="ignore").brokers["default"]

    with pytest.raises(NoConsumerError, match=r"page\.viewed"):
        broker.publish(Message("page.viewed"))


def test_the_memory_of_warned_types_is_bounded(
    live_site: UseSite,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_gomq.outgoing.MAX_WARNED", 2)
    live_site()

    for number in range(4):
        emit(f"page.number{number}")

    assert len(warnings_of(caplog)) == 2
