"""One emit() beside Signal.send_robust() with one receiver, interleaved.

    python benchmarks/emit.py [runs]

Emits and publishes go into an empty queue while the dispatcher runs; metrics are on,
tracing is off. The figures of one machine only compare with one another.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from site_for_benchmarks import set_up

BURST = 900  # fits the default queue of 1000


def main(runs: int) -> None:
    """Print the median time of each call, in nanoseconds, and its spread."""
    set_up()
    cases = _cases()
    for call, settle in cases.values():  # start threads, fill caches
        _time_one(call, settle)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, (call, settle) in cases.items():
            times[name].append(_time_one(call, settle))
    base = statistics.median(times["Signal.send_robust"])
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"{name:22} {median:7.0f} ns  ({min(found):.0f}..{max(found):.0f})"
            f"  {median / base:5.2f} x send_robust"
        )


def _time_one(call: Callable[[], object], settle: Callable[[], None]) -> float:
    began = time.perf_counter_ns()
    for _ in range(BURST):
        call()
    spent = time.perf_counter_ns() - began
    settle()
    return spent / BURST


def _cases() -> dict[str, tuple[Callable[[], object], Callable[[], None]]]:
    from django.dispatch import Signal

    from django_gomq import Event, Message, emit, get_broker

    class OrderPaid(Event, type="order.paid"):
        order_id: int
        status: str
        total: str

    def receive(sender: Any, **data: Any) -> None:
        pass

    broker = get_broker()
    broker.consume(OrderPaid, lambda message: None, name="bench")
    signal = Signal()
    signal.connect(receive, weak=False)
    data: dict[str, Any] = {"order_id": 12345, "status": "paid", "total": "99.90"}
    body = b'{"order_id":12345,"status":"paid","total":"99.90"}'

    def wait_until_quiet() -> None:
        while not broker.stats().is_quiet:
            time.sleep(0.001)

    return {
        "Signal.send_robust": (lambda: signal.send_robust(None, **data), _no_wait),
        "emit, typed": (lambda: emit(OrderPaid(**data)), wait_until_quiet),
        "emit, untyped": (lambda: emit("order.paid", data), wait_until_quiet),
        "Broker.publish": (
            lambda: broker.publish(Message("order.paid", body)),
            wait_until_quiet,
        ),
    }


def _no_wait() -> None:
    pass


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
