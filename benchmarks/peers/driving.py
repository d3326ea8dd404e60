"""The two measurements of every peer, from a thread and from an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.sink import DATA, NS, Sink, now, spread, stamped

Emit = Callable[[dict[str, Any]], object]
Metrics = Mapping[str, float]
PAUSE = 0.002  # seconds between two emits where latency is measured
PATIENCE = 30.0  # seconds for an asyncio peer to handle what it was sent


@dataclass(frozen=True, slots=True)
class Load:
    """How much one run asks of a peer."""

    consumers: int
    events: int
    """Flat out, so many that it takes about a second."""
    paced: int
    """At about 500 a second."""
    chunk: int = 0
    """Events after which an asyncio peer is let finish; 0: only at the end."""


def drive(emit: Emit, sink: Sink, load: Load) -> Metrics:
    """Emit flat out until all is handled, then now and then, as latency shows there."""
    sink.delays.clear()
    began = now()
    for _ in range(load.events):
        emit(dict(DATA))
    emitted = now()
    sink.wait(load.events * load.consumers)
    ended = now()
    sink.delays.clear()
    for _ in range(load.paced):
        emit(stamped())
        time.sleep(PAUSE)
    sink.wait(load.paced * load.consumers)
    return _summed_up(emitted - began, ended - began, sink, load)


async def drive_async(emit: Emit, sink: Sink, load: Load) -> Metrics:
    """Do the same on an event loop, which runs the handlers between the emits."""
    sink.delays.clear()
    spent = 0
    began = now()
    for number in range(1, load.events + 1):
        spent += await _timed(emit, dict(DATA))
        if load.chunk and number % load.chunk == 0:
            await _until(sink, number * load.consumers)
    await _until(sink, load.events * load.consumers)
    ended = now()
    sink.delays.clear()
    for _ in range(load.paced):
        await _timed(emit, stamped())
        await asyncio.sleep(PAUSE)
    await _until(sink, load.paced * load.consumers)
    return _summed_up(spent, ended - began, sink, load)


async def _timed(emit: Emit, data: dict[str, Any]) -> int:
    began = now()
    emitted = emit(data)
    if isinstance(emitted, Awaitable):
        await emitted
    return now() - began


async def _until(sink: Sink, expected: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not sink.has(expected):  # noqa: ASYNC110 - a sink serves threads too
            await asyncio.sleep(0)


def _summed_up(caller: int, total: int, sink: Sink, load: Load) -> Metrics:
    median, tail = spread(sink.delays)
    return {
        "caller": caller * NS / load.events,
        "handled": load.events / (total * NS),
        "p50": median,
        "p99": tail,
    }
