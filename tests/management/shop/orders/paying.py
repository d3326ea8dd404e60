"""Pays, and emits; only the URLconf imports it."""

from __future__ import annotations

from collections.abc import Iterable

from django_gomq import Event, emit, emit_many
from tests.management.shop.orders.events import CartCleared, OrderPaid, StockLow

INVOICE_SENT = "billing.invoice.sent"


class DraftSaved(Event, type="billing.draft.saved"):
    draft_id: int


def pay(order_ids: Iterable[int]) -> None:
    emit_many(OrderPaid(order_id=one) for one in order_ids)
    emit(INVOICE_SENT, {})
    emit(CartCleared(cart_id=1))
    emit(DraftSaved(draft_id=1))


def pay_one(order_id: int) -> None:
    order = OrderPaid(order_id=order_id)
    emit(order)
    emit(StockLow(product_id=1))
    emit("Stock low", {})
