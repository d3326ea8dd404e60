"""Runs the same work in several processes, and replaces those that die."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

from django.core.management.base import CommandError

from .subcommand import Write

RESTART_SECONDS: Final = 1.0
"""The least time between two starts of one process: a crash loop must not spin."""


URGENT: Final = getattr(signal, "SIGQUIT", signal.SIGTERM)
"""What a child is sent for a second Ctrl-C; Windows has no such signal."""


def drain_signals() -> list[int]:
    """Return the signals that ask for a drain.

    The end of a terminal is one, but for who asked to outlive it (``nohup``).
    """
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]


class _Group:
    """The children of this process, by pid."""

    def __init__(self, count: int, work: Callable[[], int], write: Write) -> None:
        self._count = count
        self._work = work
        self._write = write
        self._started: dict[int, float] = {}
        self._is_ending = False
        self.worst = 0

    def run(self) -> None:
        """Block until a signal has ended them all."""
        for number in drain_signals():
            signal.signal(number, self._drain)
        signal.signal(signal.SIGINT, self._interrupt)
        for _ in range(self._count):
            self._fork()
        while self._started:
            pid, status = os.wait()
            began = self._started.pop(pid, None)
            if began is not None:
                self._note_end(pid, os.waitstatus_to_exitcode(status), began)

    def _note_end(self, pid: int, code: int, began: float) -> None:
        if self._is_ending:
            self.worst = max(self.worst, abs(code))
            return
        self._write(f"Process {pid} ended with {code}; another one takes its place.")
        pause = began + RESTART_SECONDS - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        self._fork()

    def _fork(self) -> None:
        """Start one process, unless the end has begun."""
        signals = {*drain_signals(), signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none between fork and note
        if self._is_ending:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return
        pid = os.fork()
        if pid:
            self._started[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return
        # What comes from the terminal reaches it, too: the parent passes it on, so that
        # it comes once. Until it works it has taken nothing.
        for number in signals - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
        # Never ignored, not for a moment: one that waits to be let in would be lost.
        signal.signal(signal.SIGTERM, _end_now)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        _leave(self._work)

    def _drain(self, number: int, frame: FrameType | None) -> None:
        self._is_ending = True
        self._send(signal.SIGTERM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_ending:
            self._send(URGENT)
        else:
            self._drain(number, frame)

    def _send(self, number: int) -> None:
        for pid in list(self._started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _end_now(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _leave(work: Callable[[], int]) -> None:
    """Work in a forked child, and end it; never returns to what its parent was at."""
    code = 1
    try:
        code = work()
    except CommandError as error:
        sys.stderr.write(f"{error}\n")
        code = error.returncode
    except BaseException:  # noqa: BLE001 - it is the end of this process
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def supervise(count: int, work: Callable[[], int], write: Write) -> int:
    """Run ``work`` in so many processes until SIGTERM or Ctrl-C; return the worst code.

    They get SIGTERM then, and SIGQUIT at Ctrl-C in the midst of that. One that ends
    before is replaced. Call it before any thread is started.
    """
    group = _Group(count, work, write)
    group.run()
    return group.worst
