"""The gate of CI: fails where emit or the pipeline became slower; knows no peer.

    python -m benchmarks.gate

Only ratios to ``Signal.send_robust`` count, taken in turns on one processor. Noise only
ever adds time, so the fastest round of each is compared; where one is too slow, rounds
are added before that is believed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.project import set_up

ROUNDS: Final = 8
ATTEMPTS: Final = 4
BURST: Final = 900  # fits a queue of 1000
FLOW: Final = 10_000

Run = Callable[[], float]
"""Does one round; returns nanoseconds for each event."""


class Gate(NamedTuple):
    """How many times the reference a case may take."""

    case: str
    reference: str
    limit: float


# What was measured (with python -m benchmarks.gate, Python 3.11 and 3.13) and a quarter
# to a third more: half as slow again is caught, another machine's caches are not.
GATES: Final = (
    Gate("publish()", "one receiver", 0.40),
    Gate("emit(), typed", "one receiver", 1.15),
    Gate("emit_many(), each, with its commit", "one receiver", 0.85),
    Gate("flat out, 1 consumer", "one receiver", 0.72),
    Gate("flat out, 5 consumers", "five receivers", 0.72),
)


def main() -> int:
    """Print each ratio beside its limit; return 1 if one is above."""
    _stay_on_one_processor()
    runs = _make_runs()
    fastest = dict.fromkeys(runs, float("inf"))
    for attempt in range(ATTEMPTS):
        _take_turns(runs, fastest)
        slow = judge(fastest, GATES)
        if not slow:
            break
        print(f"too slow in attempt {attempt + 1} of {ATTEMPTS}: {', '.join(slow)}")
    _print(fastest)
    return 1 if slow else 0


def judge(fastest: Mapping[str, float], gates: Sequence[Gate]) -> list[str]:
    """Return the cases that take more than their limit times their reference."""
    return [
        gate.case
        for gate in gates
        if fastest[gate.case] > gate.limit * fastest[gate.reference]
    ]


def _take_turns(runs: Mapping[str, Run], fastest: dict[str, float]) -> None:
    for _ in range(ROUNDS):
        for name, run in runs.items():
            fastest[name] = min(fastest[name], run())


def _print(fastest: Mapping[str, float]) -> None:
    for name in ("one receiver", "five receivers"):
        print(f"Signal.send_robust(), {name:22} {fastest[name]:7.0f} ns")
    for gate in GATES:
        found = fastest[gate.case]
        ratio = found / fastest[gate.reference]
        verdict = "ok" if ratio <= gate.limit else "TOO SLOW"
        print(
            f"{gate.case:36} {found:7.0f} ns  {ratio:5.2f} x {gate.reference}, "
            f"at most {gate.limit:.2f}: {verdict}"
        )


def _stay_on_one_processor() -> None:
    # What goes from core to core costs as much as the work, and differs each time.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _make_runs() -> dict[str, Run]:
    set_up({"BROKERS": {"default": {"OPTIONS": {"capacity": FLOW}}}})
    from django.db import transaction

    from django_gomq import Event, Message, emit, emit_many, get_broker

    class OrderPaid(Event, type="order.paid"):
        order_id: int
        status: str
        total: str

    event = OrderPaid(order_id=12345, status="paid", total="99.90")
    body = b'{"order_id":12345,"status":"paid","total":"99.90"}'
    broker = get_broker()
    for name, count in (("order.paid", 1), ("flow.one", 1), ("flow.five", 5)):
        _consume(broker, name, count)

    def emit_in_transaction() -> None:
        with transaction.atomic():
            emit_many([event] * FLOW)

    def flow(name: str) -> Run:
        def publish_all() -> None:
            for _ in range(FLOW):
                broker.publish(Message(name, body), timeout=60.0)
            _wait_until_quiet(broker)

        return lambda: _time(publish_all, FLOW)

    def burst(call: Callable[[], object]) -> Run:
        return lambda: _time_burst(call, broker)

    return {
        "one receiver": _signal(1),
        "five receivers": _signal(5),
        "publish()": burst(lambda: broker.publish(Message("order.paid", body))),
        "emit(), typed": burst(lambda: emit(event)),
        "emit_many(), each, with its commit": lambda: _time(
            emit_in_transaction, FLOW, broker
        ),
        "flat out, 1 consumer": flow("flow.one"),
        "flat out, 5 consumers": flow("flow.five"),
    }


def _consume(broker: Any, event_type: str, count: int) -> None:
    for number in range(count):
        broker.consume(
            event_type,
            lambda message: None,
            name=f"{event_type}.{number}",
            capacity=FLOW,
            overflow="backpressure",
        )


def _signal(receivers: int) -> Run:
    from django.dispatch import Signal

    signal = Signal()
    for _ in range(receivers):
        signal.connect(lambda sender, **data: None, weak=False)

    def send() -> None:
        signal.send_robust(None, order_id=12345, status="paid", total="99.90")

    return lambda: _time_burst(send, None)


def _time_burst(call: Callable[[], object], broker: Any) -> float:
    def call_often() -> None:
        for _ in range(BURST):
            call()

    return _time(call_often, BURST, broker)


def _time(work: Callable[[], object], events: int, broker: Any = None) -> float:
    began = time.perf_counter_ns()
    work()
    spent = time.perf_counter_ns() - began
    if broker is not None:
        _wait_until_quiet(broker)
    return spent / events


def _wait_until_quiet(broker: Any) -> None:
    while not broker.stats().is_quiet:
        time.sleep(0.0005)


if __name__ == "__main__":
    sys.exit(main())
