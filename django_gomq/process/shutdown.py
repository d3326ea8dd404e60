"""The coordinator of a process's end: whatever comes first drains.

No single hook covers all servers: uvicorn and ``runserver`` end by a bare SIGTERM,
which skips ``atexit``; Celery's children leave by ``os._exit``; granian replaces the
handlers of signals; and what runs later than ``threading._register_atexit`` can use
no executor. docs/deployment.md has a table of servers and the trigger that each takes.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from types import FrameType
from typing import Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary

from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import Process, current, start_no_more
from django_gomq.bus.process.housekeeping import HandOver, write_log
from django_gomq.bus.stats import Remainder

logger = logging.getLogger("gomq.shutdown")

Trigger = Literal["command", "lifespan", "sigterm", "celery", "threading", "atexit"]
Tell = Callable[[Sequence[Remainder], HandOver], object]

EXIT_CODE: Final = 1
"""Of a management command that succeeded, where messages of it were left."""
_ASKED_BY_OTHERS: Final = ("lifespan", "sigterm", "celery")
_DRAINED: Final = "Drained by %s in %.2f s: %d left"
_LOCK_SECONDS: Final = 0.1  # ample for a handler that writes a line
_UID: Final = "django_gomq"


class Drainable(Protocol):
    """What runs in this process, as its end sees it; thread-safe."""

    def is_due(self) -> bool:
        """Whether there is anything to drain, or a drain is under way."""

    def may_wait(self) -> bool:
        """Whether the end of a management command may wait for its messages."""

    def signal_timeout(self) -> float:
        """Return how many seconds a drain may take that others wait for."""

    def logging_hangs(self) -> bool:
        """Whether a log line of the bus is being written and does not end."""

    def finish(self) -> bool:
        """Wait for what was accepted, up to its own limit; return whether all is."""

    def close(self, timeout: float | None, tell: Tell) -> None:
        """Drain and stop; None: up to its own limit. May be called again.

        ``tell`` is called with what the brokers that it stopped left, if there are any,
        and with what has a line written that may block. A second caller waits for the
        first, and may give it less time.
        """


class ShutdownCoordinator:
    """Drains once in each process, by the first trigger that is reached."""

    def __init__(self, bus: Drainable) -> None:
        self._bus = bus
        self._terminations: WeakKeyDictionary[Process, Thread] = WeakKeyDictionary()

    def install(self, *, signals: bool) -> None:
        """Hang every trigger that this process has; starts nothing. Call it once.

        Without ``signals`` SIGTERM is left as it is.
        """
        # These run in the reverse order of their registration, hence before those of
        # concurrent.futures: handlers can still use executors.
        register = getattr(threading, "_register_atexit", atexit.register)
        register(partial(self._end, "threading"))
        atexit.register(self._end, "atexit")
        _connect_celery(self._end_celery_child)
        self._extend_commands()
        if signals:
            self._chain_sigterm()

    def drain(self, trigger: Trigger) -> None:
        """Drain, if that is still to be done; blocks until it is. Thread-safe.

        Ctrl-C meanwhile, and what exits, ends it at once; what is left is said first.
        """
        timeout = self._bus.signal_timeout() if trigger in _ASKED_BY_OTHERS else None
        tell = partial(_tell, trigger, Clock.monotonic())
        try:
            self._bus.close(timeout, tell)
        except (KeyboardInterrupt, SystemExit):
            self._bus.close(0.0, tell)
            raise

    def _end(self, trigger: Trigger) -> None:
        self._wait_for_termination()
        start_no_more()
        self.drain(trigger)
        if self._bus.logging_hangs():
            _free_log_handlers()
        self._wait_for_termination()  # a SIGTERM may have come meanwhile

    def _wait_for_termination(self) -> None:
        termination = self._terminations.get(current())
        if termination is not None:
            # The main thread went on to its end after a SIGTERM. It gets no further:
            # the exit code is to be that of a SIGTERM that nobody handled.
            termination.join()

    def _end_celery_child(self, **signal: object) -> None:
        self.drain("celery")

    # ------------------------------------------------------------ commands

    def _extend_commands(self) -> None:
        """Have management commands end once their messages are handled.

        Python leaves no other place where a drain could still set the exit code.
        """
        management: Any = sys.modules.get("django.core.management.base")
        if management is None:
            return
        run = management.BaseCommand.run_from_argv

        @functools.wraps(run)
        def run_and_finish(command: object, argv: list[str]) -> None:
            try:
                run(command, argv)
            except SystemExit as ended:
                if not self._finish_command() and not ended.code:
                    raise SystemExit(EXIT_CODE) from None
                raise
            if not self._finish_command():
                raise SystemExit(EXIT_CODE)

        management.BaseCommand.run_from_argv = run_and_finish

    def _finish_command(self) -> bool:
        """Wait for what a command emitted; return whether all of it was handled."""
        if not (self._bus.may_wait() and self._bus.is_due()):
            return True
        try:
            is_finished = self._bus.finish()
        except KeyboardInterrupt:
            self._bus.close(0.0, partial(_tell, "command", Clock.monotonic()))
            raise
        if not is_finished:
            self._bus.close(0.0, partial(_tell, "command", Clock.monotonic()))
        return is_finished

    # ------------------------------------------------------------ signals

    def _chain_sigterm(self) -> None:
        try:
            # A server's own handler ends in atexit, or in a trigger of its own.
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._terminate)
        except ValueError:
            pass  # not the main thread, or not the main interpreter

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        # A second signal ends the process now.
        signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._bus.is_due():
            signal.raise_signal(number)
            return
        # Not here: this thread may hold a lock that the drain needs.
        termination = Thread(
            target=self._drain_and_die, args=(number,), name="gomq-stop", daemon=True
        )
        try:
            termination.start()
        except RuntimeError:
            self._drain_and_die(number)  # there are no threads, or no more
        else:
            self._terminations[current()] = termination

    def _drain_and_die(self, number: int) -> None:
        try:
            self.drain("sigterm")
        finally:
            os.kill(os.getpid(), number)


def _tell(
    trigger: Trigger, began: float, stopped: Sequence[Remainder], hand_over: HandOver
) -> None:
    left = sum(
        sum(remainder.dropped.values()) + remainder.in_flight for remainder in stopped
    )
    seconds = Clock.monotonic() - began
    fields = {"gomq_trigger": trigger, "gomq_seconds": seconds, "gomq_left": left}
    line = partial(write_log, logger, logging.INFO, _DRAINED, trigger, seconds, left)
    hand_over(partial(line, fields=fields))


def _free_log_handlers() -> None:
    """Let ``logging.shutdown`` pass handlers that a line of ours never leaves.

    They hold their lock, for which it would wait for ever.
    """
    loggers = (logging.root, *logging.root.manager.loggerDict.values())
    for handler in {
        handler for known in loggers for handler in getattr(known, "handlers", ())
    }:
        lock = handler.lock
        if lock is not None and not lock.acquire(timeout=_LOCK_SECONDS):
            handler.createLock()
        elif lock is not None:
            lock.release()


def _connect_celery(receiver: Callable[..., None]) -> None:
    """Hear of the end of a prefork child, where this process has loaded Celery."""
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        shutdown = signals.worker_process_shutdown
        shutdown.connect(receiver, weak=False, dispatch_uid=_UID)
