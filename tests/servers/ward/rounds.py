"""What a request or a task asks of its process: who it is, and to emit rounds."""

from __future__ import annotations

import os
import threading
import time
from typing import NoReturn, NotRequired, TypedDict

from django_gomq import brokers, emit
from tests.servers.ward import journal

LAST_ROUNDS = 3

_one_at_a_time = threading.Lock()
_emitted: dict[int, int] = {}  # by pid: a fork hands down what its parent counted


class Answer(TypedDict):
    """``emitted``: how many events of this process were accepted so far."""

    pid: int
    threads: list[str]
    emitted: int
    room: NotRequired[int]
    """How many fast rounds the queue would take now."""


def tell(hold: float = 0.0) -> Answer:
    """Say who answers; while one is held, others get the next request."""
    time.sleep(hold)
    names = sorted(thread.name for thread in threading.enumerate())
    pid = os.getpid()
    return {"pid": pid, "threads": names, "emitted": _emitted.get(pid, 0)}


def look(hold: float = 0.0) -> Answer:
    """Tell also of the room that there is."""
    fast = brokers["default"].stats().queues["ward.round.fast"]
    held = fast.published - fast.dispatched
    return {**tell(hold), "room": fast.capacity - held}


def emit_for_ever(hold: float = 0.0) -> NoReturn:
    """Emit fast rounds until a signal handler raises, and a few slow ones then.

    Notes which were accepted, and which one was at hand.
    """
    accepted: list[int] = []
    time.sleep(hold)
    try:
        journal.note("storm", 0)
        _emit_on(accepted)
    finally:
        journal.note_all("accepted", accepted)
        journal.note("at_hand", _emitted.get(os.getpid(), 0))
        emit_rounds("slow", LAST_ROUNDS)


# A function of its own: a block of Python 3.13 does not catch what a signal raises
# where a loop in it jumps back.
def _emit_on(accepted: list[int]) -> NoReturn:
    pid = os.getpid()
    number = _emitted.get(pid, 0)
    while True:
        number += 1
        _emitted[pid] = number  # also where it is refused, or cut short
        if emit("ward.round.fast", [pid, number]):
            accepted.append(number)


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
