"""One emit now and then, when the dispatcher sleeps, and how soon it is handled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from django.dispatch import Signal

from benchmarks.cases.bus import Bus
from benchmarks.sink import now, spread
from django_gomq import Event, Message, emit

PAUSE = 0.001  # seconds; sleep() adds its own 0.1 ms
Run = Callable[[], Mapping[str, float]]


class Stamped(Event, type="bench.stamped"):
    """An event that says when it was made."""

    at: int


def emit_paced(consumers: int, emits: int) -> Run:
    """Emit about a thousand events a second; a run returns what p50 and p99 took."""
    delays: list[int] = []

    def note(message: Message[Any]) -> None:
        entered = now()
        delays.append(entered - message.data.at)

    bus = Bus(consumers, handler=note, types=[Stamped])

    def run() -> Mapping[str, float]:
        delays.clear()
        spent = [_emit_one() for _ in range(emits)]
        bus.settle(emits)
        median, tail = spread(spent)
        entry, late = spread(delays)
        return {"emit_p50": median, "emit_p99": tail, "p50": entry, "p99": late}

    return run


def _emit_one() -> int:
    event = Stamped(at=now())
    return _time_one(lambda: emit(event))


def send_robust(emits: int) -> Run:
    """Send a signal now and then, for scale: caches are cold for it too."""
    signal = Signal()
    signal.connect(lambda sender, **data: None, weak=False)
    return _referring(lambda: signal.send_robust(None, at=now()), emits)


def wake(emits: int) -> Run:
    """Wake a thread and do no more: the least that any queue with a thread costs."""
    bed = threading.Lock()
    bed.acquire()

    def sleep() -> None:
        while True:
            bed.acquire()

    threading.Thread(target=sleep, daemon=True).start()

    def wake_up() -> None:
        if bed.locked():  # else it has not come back from the last time
            bed.release()

    return _referring(wake_up, emits)


def _referring(call: Callable[[], object], emits: int) -> Run:
    def run() -> Mapping[str, float]:
        median, tail = spread([_time_one(call) for _ in range(emits)])
        return {"emit_p50": median, "emit_p99": tail}

    return run


def _time_one(call: Callable[[], object]) -> int:
    began = now()
    call()
    spent = now() - began
    time.sleep(PAUSE)
    return spent
