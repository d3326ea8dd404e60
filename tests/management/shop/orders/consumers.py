from __future__ import annotations

from typing import Any

from django_gomq import Message, Retry, consumer
from tests.management.shop.orders.events import OrderPaid


@consumer(OrderPaid, name="orders.ledger", retry=Retry(attempts=3), concurrency=2)
def write_ledger(message: Message[OrderPaid]) -> None:
    pass


@consumer("shop.*", "billing.*", name="orders.audit", batch=500, linger=0.2)
def audit(messages: list[Message[Any]]) -> None:
    pass


@consumer("page.viewed", name="orders.pages", capacity=50, overflow="drop_oldest")
class Pages:
    def handle(self, message: Message[Any]) -> None:
        pass


@consumer(
    "legacy.import.done",
    name="orders.legacy",
    retry=Retry(retry_on=(OSError, KeyError)),
)
def after_import(message: Message[Any]) -> None:
    pass


@consumer("season.started", name="orders.off")
def off(message: Message[Any]) -> None:
    pass
