"""Exceptions that a signal handler raises, at any moment, in the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
