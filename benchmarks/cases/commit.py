"""Events that wait for the commit of one transaction, also under savepoints."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from django.db import transaction

from benchmarks.cases.bus import Bus, OrderPaid, with_room
from benchmarks.sink import DATA, NS, now
from django_gomq import emit_many

Run = Callable[[], Mapping[str, float]]
SAVEPOINTS = 100


def commit(events: int, repeats: int) -> Run:
    """Emit all in one call; from before the BEGIN until after the COMMIT."""
    batch = [OrderPaid(**DATA) for _ in range(events)]
    bus = _with_room_for(events)

    def run_once() -> float:
        began = now()
        with transaction.atomic():
            emit_many(batch)
        spent = now() - began
        bus.settle(events)
        return spent * NS / events

    return lambda: {"each": statistics.median(run_once() for _ in range(repeats))}


def roll_back_savepoints(events: int) -> Run:
    """Emit half of the events inside savepoints that are rolled back.

    The empty savepoints alone are timed too: they are the database's own.
    """
    part = [OrderPaid(**DATA) for _ in range(events // SAVEPOINTS // 2)]
    bus = _with_room_for(events)

    def run() -> Mapping[str, float]:
        alone = _time_savepoints([])
        spent = _time_savepoints(part)
        bus.settle(len(part) * SAVEPOINTS)
        count = 2 * len(part) * SAVEPOINTS
        return {"with_savepoints": spent / count, "each": (spent - alone) / count}

    return run


def _time_savepoints(part: Sequence[OrderPaid]) -> float:
    began = now()
    with transaction.atomic():
        for _ in range(SAVEPOINTS):
            emit_many(part)
            with transaction.atomic():
                emit_many(part)
                transaction.set_rollback(True)
    return (now() - began) * NS


def _with_room_for(events: int) -> Bus:
    """Return a bus that holds all events of one commit."""
    return Bus(gomq=with_room(events), capacity=events, overflow="backpressure")
