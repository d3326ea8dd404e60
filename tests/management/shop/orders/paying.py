"""Pays, and emits; no module of the project imports this one."""

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


def pay_one(order: OrderPaid, *, is_last: bool) -> None:
    emit(order if is_last else StockLow(product_id=1))
    emit("Stock low", {})
