"""Exceptions that a signal handler raises, at any moment, in the main thread."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tests.untraced import untraced


class Interrupted(Exception):
    """Raised by a signal handler."""


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """A SIGVTALRM raises, once, if this was set (SIGALRM is pytest-timeout's)."""
    armed = threading.Event()

    def interrupt(*_: object) -> None:
        if armed.is_set():
            armed.clear()
            raise Interrupted

    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        yield armed
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a signal handler's exceptions come up only in the lines of the test."""
    gc.disable()  # plugins have it call them, and what that raises is lost
    try:
        with untraced():
            yield
    finally:
        gc.enable()


# What runs for ever is a function of its own: a block of Python 3.13 does not catch
# what a signal raises where a loop in it jumps back.
def interrupt_often(
    run_for_ever: Callable[[], object], interrupts: threading.Event, rounds: int
) -> int:
    """Run this so many times, each until it is interrupted; return how often it was."""
    hits = 0
    for _ in range(rounds):
        try:
            interrupts.set()
            signal.setitimer(signal.ITIMER_VIRTUAL, 1e-6)
            run_for_ever()
        except Interrupted:
            hits += 1
    return hits


def interrupt_at(step: int, call: Callable[[], object]) -> bool:
    """Raise at one of the steps where signal handlers run; False: it has fewer.

    They run where a function in Python begins, and where one in C has returned.
    """
    return comes_out_at(step, call) is True


def comes_out_at(step: int, call: Callable[[], object]) -> bool | None:
    """Whether what is raised at this step comes out of the call; None: it has fewer."""
    left = step

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal left
        if event in {"call", "c_return"}:
            left -= 1
            if left < 0:
                raise Interrupted  # Python forgets this function then

    gc.disable()  # as above
    sys.setprofile(count)
    try:
        call()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return None if left >= 0 else False
