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
    assert_type(message.causation_id, str | None)
    assert_type(message.correlation_id, str | None)
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
consumer("page.viewed", nmae="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


# Handlers take what the consumer hands them.


@consumer(HealthRecordMoved, PageViewed, name="health.either")
def either(message: Message[HealthRecordMoved | PageViewed]) -> None: ...


@consumer(HealthRecordMoved, name="health.base")
def on_base(message: Message[HealthRecordSaved]) -> None: ...


@consumer(HealthRecordSaved, name="health.any.event")
def on_any_event(message: Message[Event]) -> None: ...


@consumer(HealthRecordSaved, name="health.many", batch=10)
def many(messages: list[Message[HealthRecordSaved]]) -> None: ...


@consumer("page.viewed", "page.left", name="pages.object")
class OnPages:
    async def handle(self, message: object) -> None: ...


assert_type(OnPages(), OnPages)
consumer("page.viewed", name="pages.bound")(OnPages().handle)
consumer("page.viewed", name="pages.made")(OnPages())


class Handles:
    """Nothing that it could."""


def of_one(message: Message[Any]) -> None: ...
def of_page(message: Message[PageViewed]) -> None: ...
def of_pages(messages: list[Message[PageViewed]]) -> None: ...
def of_none() -> None: ...
def of_two(message: Message[Any], other: int) -> None: ...


consumer(PageViewed)(of_page)
consumer(PageViewed, batch=5)(of_pages)
consumer(HealthRecordSaved)(of_page)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer(PageViewed)(of_pages)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer(PageViewed, batch=5)(of_page)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer("page.viewed", batch=5)(of_one)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer("page.viewed")(of_pages)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer("page.viewed")(of_none)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer("page.viewed")(of_two)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer("page.viewed")(Handles)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer(["page.viewed"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
consumer(of_one)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


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
emit_on_signal(order_paid, "shop.order.paid", data=describe_order, priority=7)
emit_model_events(
    "health.HealthRecord",
    create="health.record.created",  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
)


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
