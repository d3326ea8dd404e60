"""bubus: pydantic events on an asyncio bus with a history."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("BUBUS_LOGGING_LEVEL", "CRITICAL")  # read at its import

from bubus import BaseEvent, EventBus

from benchmarks.peers.driving import Load, Metrics, drive_async
from benchmarks.sink import Sink


class OrderPaid(BaseEvent):
    """The event of all cases."""

    order_id: int
    status: str
    total: Any


def dispatch(*, parallel: bool, **load: int) -> Callable[[], Metrics]:
    """EventBus.dispatch(); handlers of one event run in turn, or at once."""
    asked = Load(**load, chunk=50)  # it refuses more than 100 that are pending

    async def run() -> Metrics:
        sink = Sink()
        bus = EventBus(parallel_handlers=parallel)
        for number in range(asked.consumers):
            bus.on(OrderPaid, _make_handler(sink, number))
        try:
            return await drive_async(lambda data: _dispatch(bus, data), sink, asked)
        finally:
            await bus.stop(timeout=1)

    return lambda: asyncio.run(run())


def _dispatch(bus: EventBus, data: dict[str, Any]) -> None:
    bus.dispatch(OrderPaid(**data))  # what it returns can be awaited, to its end


def _make_handler(sink: Sink, number: int) -> Callable[[OrderPaid], Any]:
    async def handle(event: OrderPaid) -> None:
        sink.take(event.total)

    handle.__name__ = f"handle_{number}"
    return handle
