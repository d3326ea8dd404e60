"""The test kit as users write it: checked by mypy and by pyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

import pytest
from django.test import TestCase

from django_gomq import Event, Message, consumer
from django_gomq.testing import (
    CapturedEvents,
    DeadLettered,
    Gomq,
    GomqTestMixin,
    HandledMessage,
    LiveBus,
    Outcome,
    assert_emitted,
    assert_listening,
    assert_not_emitted,
    assert_nothing_emitted,
    call,
    capture,
    inline,
    live,
)


class OrderPaid(Event, type="shop.order.paid"):
    order_id: int
    amount: int = 0


@consumer(OrderPaid, name="shop.ledger")
def write_ledger(message: Message[OrderPaid]) -> None: ...


paid = OrderPaid(order_id=7)

# --- What was emitted: typed where an Event class says so.

with capture(only=["billing.*", OrderPaid]) as events:
    assert_type(events, CapturedEvents)
    assert_type(events.of(OrderPaid), list[Message[OrderPaid]])
    assert_type(events.of("page.viewed"), list[Message[Any]])
    found = assert_emitted(
        OrderPaid, data={"order_id": 7}, where=bool, count=1, key="7"
    )
    assert_type(found, list[Message[OrderPaid]])
    assert_type(found[0].data.order_id, int)
    assert_type(events.assert_emitted("page.viewed"), list[Message[Any]])
    assert_not_emitted(OrderPaid, where=lambda data: data.amount > 0)
    assert_nothing_emitted()
    assert_emitted(OrderPaid, order_id=7)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    assert_emitted(paid)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

# --- Handlers.

assert_listening(OrderPaid, "shop.ledger")
outcome = call(write_ledger, paid, attempt=2)
assert_type(outcome, Outcome)
assert_type(call(write_ledger, "shop.order.paid", {"order_id": 7}), Outcome)
assert_type(call("shop.audit", [paid, paid]), list[Outcome])
if isinstance(outcome, DeadLettered):
    assert_type(outcome.error, BaseException)

with inline(raise_errors=False) as run:
    assert_type(run.handled, list[HandledMessage])
    assert_type(run.of(OrderPaid), list[Message[OrderPaid]])

with live() as bus:
    assert_type(bus, LiveBus)
    bus.drain(timeout=5)


# --- The fixture and the mixin.


@pytest.mark.gomq("inline")
def test_of_user(gomq: Gomq) -> None:
    assert_type(gomq.assert_emitted(OrderPaid), list[Message[OrderPaid]])
    assert_type(gomq.events, CapturedEvents)
    gomq.drain(5)
    with gomq.live() as bus:
        assert_type(bus, LiveBus)


class TestsOfUser(GomqTestMixin, TestCase):
    gomq_mode = "live"

    def test_of_user(self) -> None:
        assert_type(self.gomq, Gomq)
