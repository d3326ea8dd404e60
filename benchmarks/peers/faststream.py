"""FastStream on its in-memory TestRedisBroker: no server, no queue, all on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faststream.redis import RedisBroker, TestRedisBroker

from benchmarks.peers.driving import Load, Metrics, drive_async
from benchmarks.sink import TYPE, Sink


def in_memory(**load: int) -> Callable[[], Metrics]:
    """One subscriber of the channel for each consumer."""
    asked = Load(**load)

    async def run() -> Metrics:
        sink = Sink()
        broker = RedisBroker(logger=None)
        for number in range(asked.consumers):
            broker.subscriber(TYPE)(_make_subscriber(sink, number))
        async with TestRedisBroker(broker) as running:
            return await drive_async(
                lambda data: running.publish(data, TYPE), sink, asked
            )

    return lambda: asyncio.run(run())


def _make_subscriber(sink: Sink, number: int) -> Callable[[dict[str, Any]], Any]:
    async def handle(message: dict[str, Any]) -> None:
        sink.take(message["total"])

    handle.__name__ = f"handle_{number}"
    return handle
