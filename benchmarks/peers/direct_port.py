"""What one writes first: queue.Queue, uuid4, and Prometheus objects for each message.

The shape is that of this project: a bounded queue of the type, a dispatcher, a bounded
queue and a thread for each consumer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from benchmarks.cases.bursts import BURST
from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.sink import DATA, TYPE, Sink, at, now

CAPACITY = 1000


@dataclass(slots=True)
class Envelope:
    """A message, as a dataclass."""

    id: str
    type: str
    data: Mapping[str, Any]
    time_ns: int


class Port:
    """A bus of one event type."""

    def __init__(self, consumers: int, take: Callable[[object], object]) -> None:
        self._make_metrics()
        self._take = take
        self._queue: Queue[Envelope] = Queue(CAPACITY)
        self._channels: list[Queue[Envelope]] = [
            Queue(CAPACITY) for _ in range(consumers)
        ]
        self._start(self._dispatch)
        for number, channel in enumerate(self._channels):
            self._start(self._handle, str(number), channel)

    def _make_metrics(self) -> None:
        registry = CollectorRegistry()
        labels = ["event", "consumer"]
        self._emitted = Counter("emitted", "x", ["event"], registry=registry)
        self._depth = Gauge("depth", "x", ["event"], registry=registry)
        self._handled = Counter("handled", "x", labels, registry=registry)
        self._seconds = Histogram("handler_seconds", "x", labels, registry=registry)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        Thread(target=target, args=arguments, daemon=True).start()

    def emit(self, event: str, data: Mapping[str, Any]) -> None:
        """Put one message on the queue; waits while it is full."""
        self._queue.put(Envelope(uuid.uuid4().hex, event, data, time.time_ns()))
        self._emitted.labels(event).inc()
        self._depth.labels(event).set(self._queue.qsize())

    def is_quiet(self) -> bool:
        """Whether no queue holds anything."""
        return not any(one.qsize() for one in (self._queue, *self._channels))

    def _dispatch(self) -> None:
        while True:
            message = self._queue.get()
            for channel in self._channels:
                channel.put(message)

    def _handle(self, name: str, channel: Queue[Envelope]) -> None:
        while True:
            message = channel.get()
            began = time.perf_counter()
            self._take(message.data["total"])
            spent = time.perf_counter() - began
            self._seconds.labels(message.type, name).observe(spent)
            self._handled.labels(message.type, name).inc()


def flat_out(**load: int) -> Callable[[], Metrics]:
    """Drive the port as every peer."""
    asked = Load(**load)
    sink = Sink()
    port = Port(asked.consumers, sink.take)
    return lambda: drive(lambda data: port.emit(TYPE, data), sink, asked)


def bursts(count: int) -> Callable[[], Metrics]:
    """Emit into a queue with room, as ``cases.bursts`` does."""
    port = Port(1, lambda total: None)

    def run_once() -> int:
        began = now()
        for _ in range(BURST):
            port.emit(TYPE, DATA)
        spent = now() - began
        while not port.is_quiet():
            time.sleep(0.001)
        return spent

    return lambda: {"each": at(0.5, [run_once() for _ in range(count)]) / BURST}
