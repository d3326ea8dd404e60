from __future__ import annotations

from typing import Any

import pytest
from django.dispatch import Signal

from django_gomq import ConfigurationError, emit_on_signal
from django_gomq.testing import CapturedEvents
from tests.django_site.clinic.events import RecordSaved


class Shop:
    """A sender."""


def order_of(sender: object, **details: Any) -> dict[str, Any]:
    assert "signal" not in details
    return {"order": details["order"]}


def test_a_signal_becomes_an_event(gomq_events: CapturedEvents) -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", data=order_of)

    paid.send(Shop, order=7)

    gomq_events.assert_emitted("shop.order.paid", times=1, order=7)


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


def test_an_error_in_data_reaches_the_sender() -> None:
    paid = Signal()
    emit_on_signal(paid, "shop.order.paid", data=order_of)

    with pytest.raises(KeyError):
        paid.send(Shop)


@pytest.mark.parametrize(
    ("event", "options"), [("A B", {}), ("shop.order.paid", {"prioritty": 9})]
)
def test_a_wrong_registration_is_told_when_it_is_made(
    event: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        emit_on_signal(Signal(), event, **options)
