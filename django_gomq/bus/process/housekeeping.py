"""Observers' calls and log lines on one thread, so that none holds the bus up."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from logging import Logger
from threading import Lock, RLock, Thread, current_thread
from typing import Final

from django_gomq.bus.errors import (
    describe_error,
    format_traceback,
    printable,
    traceback_of,
)

from .clock import Clock
from .fork import claim_thread, is_patched_late, may_start

Call = Callable[[], object]

MAX_WAITING: Final = 4_000
"""Calls that may wait. A burst of refusals fits, of as long as the interpreter takes to
change threads; where a log handler hangs, so many messages are kept alive."""


class Housekeeping:
    """Runs what it is handed, in that order, on one daemon thread "gomq-housekeeping".

    The thread is started by ``start`` or the first call, and by any later one where it
    could not be started, or has ended. Whatever calls raise is swallowed and counted.
    Belongs to one process. Thread-safe; only ``flush`` and ``stop`` block.
    """

    def __init__(self, most: int = MAX_WAITING) -> None:
        """``most`` is how many calls may wait."""
        self._most = most
        self._calls: deque[Call] = deque()
        self._token = Lock()  # released: there may be something to do
        self._token.acquire()
        self._starting = Lock()
        self._working = Lock()
        self._counting = RLock()  # a signal handler may lose a call too
        self._thread: Thread | None = None
        self._stopped = False
        self._done = 0
        self._stuck_at: int | None = None
        self.lost = 0
        """How many calls found no room."""
        self.failed = 0
        """How many calls raised something."""

    def start(self) -> None:
        """Start the thread, if it can be had: at the interpreter's end it cannot.

        There what is handed over would hold the end up for as long as it blocks.
        """
        self._wake()

    def hand_over(self, call: Call) -> bool:
        """Have this run soon; return whether there was room for it.

        Never raises, never blocks, and waits for no lock that a call may hold. After
        ``stop``, where no thread can be had, it runs at once: there is no bus to hold
        up any more, and nobody who would run it later. So it does where the bus never
        starts, as threads were made greenlets too late.
        """
        if len(self._calls) >= self._most:
            with self._counting:
                self.lost += 1
            return False
        self._calls.append(call)
        if not self._wake() and (self._stopped or is_patched_late()):
            self._work_off_here()
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over before has run; return whether it has.

        Blocks up to ``timeout`` seconds, and not at all where the last flush waited in
        vain and nothing has moved since. Where no thread can be had, it runs what is
        left itself, and blocks as that does. On the housekeeping thread it answers
        False at once.
        """
        if self._is_idle:
            return True
        if self._thread is current_thread() or self.is_stuck:
            return False
        done = Lock()
        done.acquire()
        self._calls.append(done.release)
        has_thread = self._wake()
        if has_thread:
            has_run = done.acquire(timeout=timeout)
        else:
            self._work_off_here(Clock.monotonic() + timeout)
            has_run = not done.locked()
        self._stuck_at = None if has_run else self._done
        return has_run

    def stop(self, timeout: float) -> bool:
        """Flush, then end the thread; return whether all has run. Idempotent.

        What is handed over later has a thread for as long as it takes.
        """
        self._stopped = True
        has_run = self.flush(timeout)
        self._release_token()
        thread = self._thread
        if has_run and thread is not None and thread.is_alive():
            thread.join(timeout)
        return has_run

    def revive(self) -> None:
        """Start the thread if calls wait for one that is not there. Does not block."""
        if self.is_dead:
            self._wake()

    @property
    def errors(self) -> int:
        """How many calls were lost or raised something."""
        return self.lost + self.failed

    @property
    def is_stuck(self) -> bool:
        """Whether the last flush waited in vain, and nothing has moved since."""
        return self._stuck_at == self._done

    @property
    def is_dead(self) -> bool:
        """Whether calls wait, and no thread is there to run them."""
        return bool(self._calls) and not self._has_thread

    @property
    def _is_idle(self) -> bool:
        return not self._calls and not self._working.locked()

    @property
    def _has_thread(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _wake(self) -> bool:
        """Have the thread look at the calls; return whether there is one."""
        self._release_token()
        return self._has_thread or self._start()

    def _release_token(self) -> None:
        try:
            if self._token.locked():
                self._token.release()
        except RuntimeError:
            pass  # another caller was faster

    def _start(self) -> bool:
        while may_start():
            if not self._starting.acquire(blocking=False):
                return True  # somebody else is about to
            try:
                if not self._has_thread:
                    self._thread = Thread(
                        target=self._run, name="gomq-housekeeping", daemon=True
                    )
                    self._thread.start()
            except (RuntimeError, MemoryError, OSError):
                return False  # the next call tries again
            finally:
                self._starting.release()
            # After a stop it may have ended again, while others relied on us.
            if self._has_thread or not self._calls:
                return True
        return False

    def _run(self) -> None:
        claim_thread()
        while True:
            self._work_off()
            if not self._stopped:
                self._token.acquire()
                continue
            # In this order: who hands over from here on starts another thread, and what
            # was handed over before is seen.
            self._thread = None
            if not self._calls:
                return

    def _work_off(self) -> None:
        while self._calls:
            with self._working:
                self._run_next()

    def _work_off_here(self, until: float | None = None) -> None:
        """Run what waits on the current thread; none of it if we are in a call now."""
        while self._calls and (until is None or Clock.monotonic() < until):
            if not self._working.acquire(blocking=False):
                return  # who is in it looks for more
            try:
                self._run_next()
            finally:
                self._working.release()

    def _run_next(self) -> None:
        try:
            call = self._calls.popleft()
        except IndexError:
            return  # another thread took it
        try:
            call()
        except BaseException:  # noqa: BLE001 - whatever an observer does
            with self._counting:
                self.failed += 1
        self._done += 1


_OURS: Final = "gomq_"
MAX_TEXT: Final = 1_000
"""Characters of one text in a line: what is longer is a document, and no name."""

HandOver = Callable[[Call], object]
"""Has a call run soon, on a thread that may wait for log handlers."""

_thread = threading.local()


def send_lines_to(hand_over: HandOver) -> None:
    """Have the lines of the current thread, one of the bus, written elsewhere."""
    _thread.hand_over = hand_over


def write_log(
    logger: Logger,
    level: int,
    text: str,
    *args: object,
    fields: Mapping[str, object] | None = None,
    error: BaseException | None = None,
) -> None:
    """Write one line with these fields, and the traceback of ``error``.

    Texts among arguments and fields are cut, and what would break the line, or speak
    to a terminal, is escaped. Never raises an Exception: one of a handler or a filter
    costs this line, one of a record factory what it would have added. Blocks as log
    handlers do, but not on a thread that sends its lines elsewhere. Thread-safe as
    these are.
    """
    write = partial(_write, logger, level, text, args, fields or {}, error)
    hand_over: HandOver | None = getattr(_thread, "hand_over", None)
    if hand_over is None:
        write()
    else:
        hand_over(write)


def _write(
    logger: Logger,
    level: int,
    text: str,
    args: tuple[object, ...],
    fields: Mapping[str, object],
    error: BaseException | None,
) -> None:
    with suppress(Exception):  # the logging of a program is anybody's code
        if logger.isEnabledFor(level):
            logger.handle(_make_record(logger, level, text, args, fields, error))


def _make_record(
    logger: Logger,
    level: int,
    text: str,
    args: tuple[object, ...],
    fields: Mapping[str, object],
    error: BaseException | None,
) -> logging.LogRecord:
    told = None if error is None else (type(error), error, traceback_of(error))
    # Where it was written says nothing: all lines are written here.
    parts = logger.name, level, __file__, 0, text, tuple(map(_tame, args)), told
    try:
        return _complete(logger.makeRecord(*parts), fields, error)
    except Exception:  # noqa: BLE001 - a record factory's bug, or an odd record of its own
        return _complete(logging.LogRecord(*parts), fields, error)


def _tame(value: object) -> object:
    """Return texts and errors as a text that fits one line, and others as they are."""
    if isinstance(value, str):
        return printable(value, MAX_TEXT)
    return describe_error(value) if isinstance(value, BaseException) else value


def _complete(
    record: logging.LogRecord,
    fields: Mapping[str, object],
    error: BaseException | None,
) -> logging.LogRecord:
    if error is not None:
        # Where formatters look before they format it: bounded, on lines of its own
        # making, and readable whatever the class of the error does.
        record.exc_text = format_traceback(error)
    # Not by ``extra``, which raises KeyError for a name that the program's record
    # factory has set. What it set under names that are not ours stays.
    for name, value in fields.items():
        if name.startswith(_OURS) or not record.__dict__.get(name):
            record.__dict__[name] = _tame(value)
    return record
