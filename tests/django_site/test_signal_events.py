from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db.models.signals import post_save
from django.dispatch import Signal

from django_gomq import ConfigurationError, NotRunningError, emit_on_signal, get_broker
from django_gomq.site import brokers
from django_gomq.testing import CapturedEvents
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.clinic.models import Dated, Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import wait_quiet


class Shop:
    """A sender."""


def order_of(sender: object, **details: Any) -> dict[str, Any]:
    assert "signal" not in details
    return {"order": details["order"]}


def test_a_signal_becomes_an_event(gomq_events: CapturedEvents) -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", data=order_of)

    paid.send(Shop, order=7)

    gomq_events.assert_emitted("shop.order.paid", data={"order": 7}, count=1)


def test_without_data_the_event_is_empty(gomq_events: CapturedEvents) -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid")

    paid.send(Shop, order=7)

    assert gomq_events[0].data == {}


def test_data_may_be_a_typed_event(gomq_events: CapturedEvents) -> None:
    paid = Signal()
    emit_on_signal(
        paid, "shop.order.paid", data=lambda sender, **kw: RecordSaved(record_id=3)
    )

    paid.send(Shop)

    assert gomq_events[0].data == RecordSaved(record_id=3)


def test_one_sender_can_be_chosen(gomq_events: CapturedEvents) -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", sender=Shop)

    paid.send(object, order=1)
    paid.send(Shop, order=2)

    assert len(gomq_events) == 1


def test_registering_twice_emits_once(gomq_events: CapturedEvents) -> None:
    paid = Signal()
    for _ in range(2):
        emit_on_signal(paid, "shop.order.paid", priority=8)

    paid.send(Shop)

    assert [message.priority for message in gomq_events] == [8]


@pytest.mark.parametrize("kind", ["data", "encode", "loop"])
def test_an_event_that_cannot_be_made_stops_nobody_and_is_told_and_counted(
    use_site: UseSite, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    use_site()
    paid, reached = Signal(), list[object]()
    emit_on_signal(
        paid, "shop.order.paid", data=order_of if kind == "data" else details_of
    )
    paid.connect(lambda sender, **details: reached.append(sender), weak=False)

    async def send() -> None:
        paid.send(Shop)

    if kind == "loop":
        asyncio.run(send())
    else:
        paid.send(Shop, **({"extra": object()} if kind == "encode" else {}))

    wait_quiet()
    assert reached == [Shop]
    assert get_broker().stats().queues["shop.order.paid"].refused == {"not_made": 1}
    (line,) = [one for one in caplog.records if one.name == "gomq.emit"]
    assert line.levelname == "ERROR"
    assert "Event shop.order.paid of a signal of Shop" in line.getMessage()
    reason = {"data": "KeyError: 'order'", "encode": "EncodeError", "loop": "aemit"}
    assert reason[kind] in line.getMessage()


def test_the_count_of_what_was_not_made_begins_at_nothing(use_site: UseSite) -> None:
    use_site()
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid")

    for _ in range(2):
        paid.send(Shop)

    assert get_broker().stats().queues["shop.order.paid"].refused == {"not_made": 0}


def test_what_was_not_made_is_counted_at_the_broker_that_was_asked_for(
    use_site: UseSite,
) -> None:
    use_site(BROKERS={"default": {}, "other": {}})
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", data=order_of, broker="other")

    paid.send(Shop)

    refused = {
        alias: get_broker(alias).stats().queues["shop.order.paid"].refused
        for alias in ("default", "other")
    }
    assert refused == {"default": {}, "other": {"not_made": 1}}


def test_the_traceback_is_told_once_for_each_class_of_errors(
    use_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    use_site()
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", data=order_of)

    paid.send(Shop)
    paid.send(Shop)
    paid.send(Shop, order=object())

    wait_quiet()
    lines = [one for one in caplog.records if one.name == "gomq.emit"]
    assert [line.exc_text is not None for line in lines] == [True, False, True]


def take_nothing() -> None: ...


def details_of(sender: object, **details: Any) -> dict[str, Any]:
    return details


def test_what_strict_raises_reaches_the_sender(live_site: UseSite) -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", strict=True)
    live_site(BROKERS={"default": {"RUN": "never"}})

    with pytest.raises(NotRunningError):
        paid.send(Shop)


def test_without_the_app_no_data_is_made(own_registry: None) -> None:
    paid, calls = Signal(), list[object]()
    emit_on_signal(paid, "shop.order.paid", data=lambda sender, **kw: calls.append(1))
    brokers.set_up(None)

    paid.send(Shop)

    assert calls == []


def test_a_second_registration_with_other_data_is_refused_where_it_stands() -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", data=order_of)

    with pytest.raises(ConfigurationError, match="'shop.order.paid' was registered b"):
        emit_on_signal(paid, "shop.order.paid")
    with pytest.raises(ConfigurationError, match=r"Shop was .*test_signal_events.py, "):
        emit_on_signal(paid, "shop.order.paid", sender=Shop, data=order_of)
        emit_on_signal(paid, "shop.order.paid", sender=Shop, data=details_of)


@pytest.mark.usefixtures("own_receivers")
@pytest.mark.parametrize(
    ("sender", "complaint"),
    [
        ("clinic.Nope", "There are .*clinic.Record"),
        (Dated, "no signal of an abstract model"),
        (7, "is no model"),
    ],
)
def test_a_sender_that_sends_no_model_signals_is_refused(
    sender: Any, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        emit_on_signal(post_save, "clinic.record.written", sender=sender)


@pytest.mark.django_db
@pytest.mark.usefixtures("own_receivers")
def test_the_sender_of_a_model_signal_may_be_named(gomq_events: CapturedEvents) -> None:
    emit_on_signal(post_save, "clinic.record.written", sender="clinic.Record")

    Record.objects.create(patient_id=1)

    assert len(gomq_events) == 1


def test_what_is_no_signal_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no django.dispatch.Signal"):
        emit_on_signal("order_paid", "shop.order.paid")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "options"),
    [
        ("A B", {}),
        ("shop.order.paid", {"prioritty": 9}),
        ("shop.order.paid", {"data": take_nothing}),
    ],
)
def test_a_wrong_registration_is_told_when_it_is_made(
    event: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        emit_on_signal(Signal(), event, **options)
