"""Huey in memory: one worker thread that looks for work every 5 ms."""

from __future__ import annotations

from collections.abc import Callable

from huey import MemoryHuey

from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.sink import Sink

POLL = 0.005  # seconds; the default of 0.1 would make its latency look worse


def memory(**load: int) -> Callable[[], Metrics]:
    """MemoryHuey; one task for each consumer, as it knows no broadcast."""
    asked = Load(**load)
    sink = Sink()
    huey = MemoryHuey("bench", results=False)
    tasks = [
        huey.task(name=f"handle_{number}")(_make_task(sink))
        for number in range(asked.consumers)
    ]

    def emit(data: dict[str, object]) -> None:
        for task in tasks:
            task(**data)

    consumer = huey.create_consumer(
        workers=1, periodic=False, initial_delay=POLL, max_delay=POLL
    )
    consumer._set_signal_handlers = lambda: None  # noqa: SLF001 - not our process
    consumer.start()
    return lambda: drive(emit, sink, asked)


def _make_task(sink: Sink) -> Callable[..., None]:
    return lambda order_id, status, total: sink.take(total)
