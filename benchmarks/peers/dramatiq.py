"""Dramatiq on its StubBroker, which keeps messages in memory: 8 worker threads."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq import Worker, actor
from dramatiq.brokers.stub import StubBroker

from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.sink import Sink


def stub(**load: int) -> Callable[[], Metrics]:
    """One actor for each consumer, as it knows no broadcast."""
    asked = Load(**load)
    sink = Sink()
    broker = StubBroker()
    broker.emit_after("process_boot")
    actors = [
        actor(_make_actor(sink), broker=broker, actor_name=f"handle_{number}")
        for number in range(asked.consumers)
    ]

    def emit(data: dict[str, object]) -> None:
        for one in actors:
            one.send(**data)

    Worker(broker, worker_timeout=100).start()
    return lambda: drive(emit, sink, asked)


def _make_actor(sink: Sink) -> Callable[..., None]:
    def handle(order_id: int, status: str, total: object) -> None:
        sink.take(total)

    return handle
