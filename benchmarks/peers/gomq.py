"""django-gomq, driven exactly as its peers: a dict goes in, its data is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.cases.bus import Bus
from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.sink import PATIENCE, TYPE, Sink
from django_gomq import Message, emit

UNTYPED = f"{TYPE}.untyped"
"""A type that has no Event class, which would judge the data."""


def untyped(**load: int) -> Callable[[], Metrics]:
    """emit() with a name and a dict; the consumers live as long as the process."""
    asked = Load(**load)
    sink = Sink()

    def handle(message: Message[Any]) -> None:
        sink.take(message.data["total"])

    bus = Bus(asked.consumers, handler=handle, types=[UNTYPED], overflow="backpressure")

    def run() -> Metrics:
        found = drive(lambda data: emit(UNTYPED, data, timeout=PATIENCE), sink, asked)
        bus.settle(asked.events + asked.paced)
        return found

    return run
