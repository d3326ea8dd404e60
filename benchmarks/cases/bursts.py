"""One publish or emit into a queue with room, while the dispatcher is awake."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from django.dispatch import Signal

from benchmarks.cases.bus import Bus, OrderPaid
from benchmarks.sink import BODY, DATA, NS, TYPE, now
from django_gomq import Message, emit

BURST = 900  # fits the default queue of 1000
Run = Callable[[], Mapping[str, float]]


def publish(consumers: int, bursts: int) -> Run:
    """Publish a message whose body is bytes already; making the Message counts."""

    def burst() -> None:
        publish_one = broker.publish
        for _ in range(BURST):
            publish_one(Message(TYPE, BODY))

    bus = Bus(consumers)
    broker = bus.broker
    return _timed(burst, bursts, lambda: bus.settle(BURST))


def emit_typed(bursts: int) -> Run:
    """Emit an event that was made before."""
    event = OrderPaid(**DATA)

    def burst() -> None:
        for _ in range(BURST):
            emit(event)

    bus = Bus()
    return _timed(burst, bursts, lambda: bus.settle(BURST))


def make_and_emit_typed(bursts: int) -> Run:
    """Make an event and emit it."""

    def burst() -> None:
        for _ in range(BURST):
            emit(OrderPaid(order_id=12345, status="paid", total="99.90"))

    bus = Bus()
    return _timed(burst, bursts, lambda: bus.settle(BURST))


def emit_untyped(bursts: int) -> Run:
    """Emit a name with a dict that was made before."""

    def burst() -> None:
        for _ in range(BURST):
            emit(TYPE, DATA)

    bus = Bus()
    return _timed(burst, bursts, lambda: bus.settle(BURST))


def send_robust(bursts: int) -> Run:
    """Send a Django signal to one receiver, in the caller's thread."""

    def receive(sender: object, **data: object) -> None:
        pass

    signal = Signal()
    signal.connect(receive, weak=False)

    def burst() -> None:
        for _ in range(BURST):
            signal.send_robust(None, order_id=12345, status="paid", total="99.90")

    return _timed(burst, bursts, lambda: None)


def _timed(burst: Callable[[], None], count: int, settle: Callable[[], None]) -> Run:
    """Time bursts by the clock, and by what this thread itself computed meanwhile."""

    def time_one() -> tuple[int, int]:
        computed, began = time.thread_time_ns(), now()
        burst()
        spent, computed = now() - began, time.thread_time_ns() - computed
        settle()
        return spent, computed

    def run() -> Mapping[str, float]:
        pairs = [time_one() for _ in range(count)]
        each, own = (statistics.median(one) / BURST for one in zip(*pairs, strict=True))
        return {"each": each * NS, "own": own * NS}

    return run
