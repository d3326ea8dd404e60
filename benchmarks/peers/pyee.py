"""pyee: listeners in the caller, on the event loop, or in a thread pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyee.asyncio import AsyncIOEventEmitter
from pyee.base import EventEmitter
from pyee.executor import ExecutorEventEmitter

from benchmarks.peers.driving import Load, Metrics, drive, drive_async
from benchmarks.sink import TYPE, Sink


def in_caller(**load: int) -> Callable[[], Metrics]:
    """EventEmitter: listeners run in the caller."""
    asked = Load(**load)
    sink = Sink()
    emitter = EventEmitter()
    _listen(emitter, sink, asked.consumers)
    return lambda: drive(lambda data: emitter.emit(TYPE, data), sink, asked)


def in_pool(**load: int) -> Callable[[], Metrics]:
    """ExecutorEventEmitter: a thread pool that queues without a bound."""
    asked = Load(**load)

    def run() -> Metrics:
        sink = Sink()
        with ExecutorEventEmitter() as emitter:
            _listen(emitter, sink, asked.consumers)
            return drive(lambda data: emitter.emit(TYPE, data), sink, asked)

    return run


def on_loop(**load: int) -> Callable[[], Metrics]:
    """AsyncIOEventEmitter: every listener is a task of the loop."""
    asked = Load(**load, chunk=500)

    async def run() -> Metrics:
        sink = Sink()
        emitter = AsyncIOEventEmitter()
        for _ in range(asked.consumers):
            emitter.add_listener(TYPE, _make_coroutine(sink))
        return await drive_async(lambda data: emitter.emit(TYPE, data), sink, asked)

    return lambda: asyncio.run(run())


def _listen(emitter: EventEmitter, sink: Sink, count: int) -> None:
    for _ in range(count):
        emitter.add_listener(TYPE, _make_listener(sink))


def _make_listener(sink: Sink) -> Callable[[dict[str, Any]], None]:
    return lambda data: sink.take(data["total"])


def _make_coroutine(sink: Sink) -> Callable[[dict[str, Any]], Any]:
    async def listen(data: dict[str, Any]) -> None:
        sink.take(data["total"])

    return listen
