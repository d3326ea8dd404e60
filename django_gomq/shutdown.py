"""The coordinator of a process's end: whatever comes first drains.

No single hook covers all servers: uvicorn and ``runserver`` end by a bare SIGTERM,
which skips ``atexit``; Celery's children leave by ``os._exit``; granian replaces the
handlers of signals; and what runs later than ``threading._register_atexit`` can use
no executor. docs/deployment.md has a table of servers and the trigger that each takes.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Thread
from types import FrameType
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from django_gomq.bus.process.fork import Process, current, start_no_more
from django_gomq.bus.process.housekeeping import Housekeeping, write_log
from django_gomq.bus.stats import Remainder

logger = logging.getLogger("gomq.shutdown")

Trigger = Literal["lifespan", "sigterm", "celery", "threading", "atexit"]
Drain = Callable[[], Sequence[Remainder]]

_LINE_SECONDS: Final = 1.0
_DRAINED: Final = "Drained by %s in %.2f s: %d left"
_UID: Final = "django_gomq"


class ShutdownCoordinator:
    """Drains once in each process, by the first trigger that is reached.

    ``drain`` blocks up to its own limit, may be called again (a second caller waits
    for the first) and returns what the brokers that it stopped left; ``is_due`` says
    whether there is anything to drain in this process.
    """

    def __init__(self, drain: Drain, is_due: Callable[[], bool]) -> None:
        self._drain = drain
        self._is_due = is_due
        self._terminations: WeakKeyDictionary[Process, Thread] = WeakKeyDictionary()

    def install(self, *, signals: bool) -> None:
        """Hang every trigger that this process has; starts nothing. Call it once.

        Without ``signals`` SIGTERM is left as it is.
        """
        # These run in the reverse order of their registration, hence before those of
        # concurrent.futures: handlers can still use executors.
        register = getattr(threading, "_register_atexit", atexit.register)
        register(self._end_with_threads)
        atexit.register(self._end)
        _connect_celery(self._end_celery_child)
        if signals:
            self._chain_sigterm()

    def drain(self, trigger: Trigger) -> None:
        """Drain, if that is still to be done; blocks until it is. Thread-safe."""
        began = time.monotonic()
        remainders = self._drain()
        if remainders:
            left = sum(
                sum(remainder.dropped.values()) + remainder.in_flight
                for remainder in remainders
            )
            seconds = time.monotonic() - began
            fields = {"gomq_rung": trigger, "gomq_seconds": seconds, "gomq_left": left}
            args = trigger, seconds, left
            _write(_DRAINED, *args, fields=fields)

    def _end(self) -> None:
        start_no_more()
        self.drain("atexit")

    def _end_celery_child(self, **signal: object) -> None:
        self.drain("celery")

    def _end_with_threads(self) -> None:
        termination = self._terminations.get(current())
        if termination is not None:
            # The main thread went on to its end after a SIGTERM. It gets no further:
            # the exit code is to be that of a SIGTERM that nobody handled.
            termination.join()
        start_no_more()
        self.drain("threading")

    def _chain_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signal.signal() refuses
        # A server's own handler ends in atexit, or in a trigger of its own.
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process now
        if not self._is_due():
            signal.raise_signal(number)
            return
        # Not here: this thread may hold a lock that the drain needs.
        termination = Thread(
            target=self._drain_and_die, args=(number,), name="gomq-stop", daemon=True
        )
        self._terminations[current()] = termination
        termination.start()

    def _drain_and_die(self, number: int) -> None:
        try:
            self.drain("sigterm")
        finally:
            os.kill(os.getpid(), number)


def _write(
    text: str, *args: object, fields: Mapping[str, object] | None = None
) -> None:
    """Wait for logging that blocks no longer than a second: the end has to come."""
    housekeeping = Housekeeping()
    line = partial(write_log, logger, logging.INFO, text, *args, fields=fields)
    housekeeping.hand_over(line)
    housekeeping.stop(_LINE_SECONDS)


def _connect_celery(receiver: Callable[..., None]) -> None:
    """Hear of the end of a prefork child, where this process has loaded Celery."""
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        shutdown = signals.worker_process_shutdown
        shutdown.connect(receiver, weak=False, dispatch_uid=_UID)
