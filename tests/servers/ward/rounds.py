"""What a request or a task asks of its process: who it is, and to emit rounds."""

from __future__ import annotations

import os
import threading
import time
from typing import TypedDict

from django_gomq import emit
from tests.servers.ward import journal

_one_at_a_time = threading.Lock()
_emitted: dict[int, int] = {}  # by pid: a fork hands down what its parent counted


class Answer(TypedDict):
    """``emitted``: how many events of this process were accepted so far."""

    pid: int
    threads: list[str]
    emitted: int


def tell(hold: float = 0.0) -> Answer:
    """Say who answers; while one is held, others get the next request."""
    time.sleep(hold)
    names = sorted(thread.name for thread in threading.enumerate())
    pid = os.getpid()
    return {"pid": pid, "threads": names, "emitted": _emitted.get(pid, 0)}


def emit_rounds(kind: str, count: int, hold: float = 0.0) -> Answer:
    """Emit some events, a while later; each has its emitter's pid and a number."""
    pid = os.getpid()
    journal.note("asked", count)
    time.sleep(hold)
    with _one_at_a_time:
        for _ in range(count):
            number = _emitted.get(pid, 0) + 1
            if emit(f"ward.round.{kind}", [pid, number]).state == "accepted":
                _emitted[pid] = number
    return tell()
