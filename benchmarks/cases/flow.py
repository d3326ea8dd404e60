"""Flat out: as fast as the consumers follow, until every message is handled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.dispatch import Signal

from benchmarks.cases.bus import Bus, OrderPaid
from benchmarks.sink import BODY, NS, PATIENCE, TYPE, Sink, now
from django_gomq import Message, emit, emit_many

BATCH = 500  # events of one emit_many()


def flat_out(
    how: str, consumers: int, messages: int, *, reads: bool = False
) -> Callable[[], Mapping[str, float]]:
    """Emit messages that wait for room; a run raises if any of them is missing."""
    sink = Sink()
    bus = Bus(
        consumers, handler=_reader(sink) if reads else _counter(sink),
        types=[OrderPaid], overflow="backpressure",
    )  # fmt: skip
    emit_all = _WAYS[how](bus)

    def run() -> Mapping[str, float]:
        sink.delays.clear()
        began = now()
        emit_all(messages)
        emitted = now()
        sink.wait(messages * consumers)
        ended = now()
        bus.settle(messages)
        return {
            "caller": (emitted - began) * NS / messages,
            "handled": messages / ((ended - began) * NS),
        }

    return run


def send_robust(consumers: int, messages: int) -> Callable[[], Mapping[str, float]]:
    """Send a signal to receivers that count, as the consumers of ``flat_out`` do."""
    sink = Sink()
    append = sink.delays.append
    signal = Signal()
    for _ in range(consumers):
        signal.connect(_make_receiver(append), weak=False)

    def run() -> Mapping[str, float]:
        sink.delays.clear()
        began = now()
        for _ in range(messages):
            signal.send_robust(None, order_id=12345, status="paid", total="99.90")
        each = (now() - began) * NS / messages
        sink.wait(messages * consumers)
        return {"caller": each, "handled": 1 / each}

    return run


def _make_receiver(append: Callable[[int], None]) -> Callable[..., None]:
    def receive(sender: object, **data: object) -> None:
        append(0)

    return receive


def _counter(sink: Sink) -> Callable[[Message[Any]], None]:
    append = sink.delays.append
    return lambda message: append(0)


def _reader(sink: Sink) -> Callable[[Message[Any]], None]:
    return lambda message: sink.take(message.data.total)


def _publish_all(bus: Bus) -> Callable[[int], None]:
    publish = bus.broker.publish

    def run(count: int) -> None:
        for _ in range(count):
            publish(Message(TYPE, BODY), timeout=PATIENCE)

    return run


def _emit_all(bus: Bus) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            emit(
                OrderPaid(order_id=12345, status="paid", total="99.90"),
                timeout=PATIENCE,
            )

    return run


def _emit_batches(bus: Bus) -> Callable[[int], None]:
    def run(count: int) -> None:
        for start in range(0, count, BATCH):
            emit_many(
                [
                    OrderPaid(order_id=12345, status="paid", total="99.90")
                    for _ in range(min(BATCH, count - start))
                ],
                timeout=PATIENCE,
            )

    return run


_WAYS = {"publish": _publish_all, "emit": _emit_all, "emit_many": _emit_batches}
