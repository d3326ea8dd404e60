"""Where the handlers of every case report, ours and the peers' alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

now = time.perf_counter_ns
NS = 1e-9

DATA: Mapping[str, Any] = {"order_id": 12345, "status": "paid", "total": "99.90"}
TYPE = "order.paid"
BODY = b'{"order_id":12345,"status":"paid","total":"99.90"}'

POLL = 0.0005  # seconds between two looks; a case runs a hundred times as long
PATIENCE = 30.0  # seconds for what was emitted to be handled


class Sink:
    """Counts what was handled, and how long each took to get there.

    An append to a list is one atomic step of 20 ns, so handlers of any number of
    threads may share it.
    """

    def __init__(self) -> None:
        self.delays: list[int] = []

    def take(self, total: object) -> None:
        """Note one event; where ``total`` is a time stamp, how old it is."""
        entered = now()
        self.delays.append(entered - total if total.__class__ is int else 0)

    def has(self, expected: int) -> bool:
        """Whether so many were handled."""
        return len(self.delays) >= expected

    def wait(self, expected: int) -> None:
        """Wait until so many were handled. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE
        while len(self.delays) < expected:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.delays)} of {expected} were handled")
            time.sleep(POLL)


def stamped() -> dict[str, Any]:
    """Return event data with the time in the place of the total."""
    return {**DATA, "total": now()}


def at(share: float, values: list[int]) -> float:
    """Return a percentile of nanoseconds, in seconds."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * NS


def spread(values: list[int]) -> tuple[float, float]:
    """Return the median and the 99th percentile of nanoseconds, in seconds."""
    return at(0.5, values), at(0.99, values)
