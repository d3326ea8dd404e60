from __future__ import annotations

from django.apps import AppConfig
from django.dispatch import Signal

from django_gomq import emit_model_events, emit_on_signal

stock_counted = Signal()


class OrdersConfig(AppConfig):
    name = "tests.management.shop.orders"

    def ready(self) -> None:
        emit_model_events(
            "auth.User", created="shop.customer.created", deleted="shop.customer.gone"
        )
        emit_on_signal(stock_counted, "shop.stock.counted")
