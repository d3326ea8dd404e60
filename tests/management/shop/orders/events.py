from __future__ import annotations

from django_gomq import Event


class OrderPaid(Event, type="shop.order.paid", version=2):
    order_id: int


class CartCleared(Event, type="cart.cleared", no_consumer="ignore"):
    cart_id: int


class StockLow(Event, type="stock.low"):
    product_id: int
