"""The public API as users write it: checked by mypy and by pyright, never run.

A line that must be an error carries both checkers' ignores; a checker that sees no
error there complains about its ignore.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, assert_type

import msgspec
from django.dispatch import Signal

from django_gomq import (
    ConsumerManager,
    Event,
    Message,
    Receipt,
    Reject,
    Retry,
    RetryLater,
    aemit,
    consumer,
    emit,
    emit_many,
    emit_model_events,
    emit_on_signal,
    get_broker,
)

# --- Events: frozen, keyword-only, with class keywords.


class HealthRecordSaved(Event, type="health.record.saved", version=1):
    record_id: int
    patient_id: int
    note: str = ""
    tags: list[str] = msgspec.field(default_factory=list[str])


class HealthRecordMoved(HealthRecordSaved, type="health.record.moved"):
    moved_at: datetime


class PageViewed(Event, type="page.viewed", no_consumer="ignore"):
    path: str


saved = HealthRecordSaved(record_id=1, patient_id=7)
assert_type(saved, HealthRecordSaved)
assert_type(saved.record_id, int)
HealthRecordMoved(record_id=1, patient_id=7, moved_at=datetime.now(UTC))

saved.record_id = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
HealthRecordSaved(1, 7)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
HealthRecordSaved(record_id=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
PageViewed(path=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- Consumers: the decorator returns what it decorates, unchanged.


@consumer(HealthRecordSaved, name="health.statistics", retry=Retry(attempts=5))
def update_statistics(message: Message[HealthRecordSaved]) -> None:
    assert_type(message.data, HealthRecordSaved)
    assert_type(message.attempt, int)
    assert_type(message.key, str | None)
    if message.data.record_id < 0:
        raise Reject("no such record")
    raise RetryLater(30)


@consumer("health.*", name="health.audit", batch=500, linger=0.2)
def audit(messages: list[Message[Any]]) -> int:
    return len(messages)


@consumer(HealthRecordSaved, PageViewed)
async def warm_cache(message: Message[Any]) -> None:
    await aemit("page.viewed", {"path": message.type})


@consumer(HealthRecordSaved, name="health.class")
class HealthConsumer:
    def handle(self, message: Message[HealthRecordSaved]) -> None:
        assert_type(message.data.patient_id, int)


assert_type(audit([]), int)
assert_type(HealthConsumer(), HealthConsumer)
update_statistics("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
consumer("page.viewed", nmae="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# --- Emit: an event, or a type and its data.

assert_type(emit(saved), Receipt)
assert_type(bool(emit(saved, key="7", priority=7, delay=30)), bool)
emit(
    "page.viewed", {"path": "/"}, headers={"a": "b"}, broker="default", using="default"
)
emit(saved, on_commit=False, timeout=0.1, strict=True)
emit_many([saved, PageViewed(path="/")])
emit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
emit("page.viewed", prioritty=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def view() -> None:
    assert_type(await aemit("page.viewed", {"path": "/"}), Receipt)


# --- Signals to events.

order_paid = Signal()


def describe_order(sender: object, **details: Any) -> dict[str, Any]:
    return {"id": details["order"].pk}


emit_model_events("health.HealthRecord", created="health.record.created")
emit_on_signal(order_paid, "shop.order.paid", data=describe_order)


# --- One level down.

broker = get_broker()
broker.publish(Message(type="health.record.saved", body=b"{}"), timeout=0.1)
manager = ConsumerManager(broker)
manager.start_all()
manager.stop(timeout=10)
broker.pause("health.statistics")
broker.resume("health.statistics")
broker.resize("health.statistics", 5000)
broker.close(timeout=10)

message: Message[HealthRecordSaved] = Message(type="health.record.saved", body=b"{}")
assert_type(message.data, HealthRecordSaved)
message.body = b""  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
uuid.UUID(message.id)
