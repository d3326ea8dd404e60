"""Starts a command anew whenever code changes, and passes on what asks for its end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Final

from django.apps import apps
from django.utils import autoreload

from .processes import URGENT, drain_signals
from .subcommand import Write

CHANGED: Final = 3
"""The exit code of a process that is to be started anew; that of Django, too."""
LOOK_SECONDS: Final = 0.5
"""Between two looks whether what does not start was changed."""


def run_anew(write: Write) -> int:
    """Run this command line in a process of its own, anew at each change of its code.

    Blocks until SIGTERM or Ctrl-C, which go on to that process, and until that has
    ended; returns its exit code. One that fails, as a file with an error was saved, is
    started again once code has changed. To be called from the main thread.
    """
    return _Parent(write).run()


def watch_code(on_change: Callable[[], object]) -> None:
    """Have this called once, from a thread, when code of this process has changed."""

    def watch() -> None:
        try:
            autoreload.get_reloader().run(threading.main_thread())
        except SystemExit:  # which is how a reloader tells
            on_change()

    Thread(target=watch, name="gomq-reloader", daemon=True).start()


class _Parent:
    """The process that watches over another one, and does nothing else."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: int | None = None

    def run(self) -> int:
        for number in drain_signals():
            signal.signal(number, self._drain)
        signal.signal(signal.SIGINT, self._interrupt)
        while True:
            seen = _changes()
            code = self._run_child()
            if self._asked is not None or not code:
                # SIGTERM ends one by itself that has not begun to work.
                return 0 if code in (-signal.SIGTERM, CHANGED) else abs(code)
            if code != CHANGED:
                self._write(f"It ended with {code}: it waits for a change of the code.")
                if not self._wait_for_change(seen):
                    return abs(code)

    def _run_child(self) -> int:
        """Run a process to its end."""
        environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        line = autoreload.get_child_arguments()
        # In the child alone: a Ctrl-C of this moment is not lost. There are no threads.
        self._child = subprocess.Popen(  # noqa: S603 - the line that began this one
            line,
            env=environ,
            close_fds=False,
            preexec_fn=_ignore_terminal,  # noqa: PLW1509 - as said above
        )
        if self._asked is not None:  # while there was none
            self._child.send_signal(self._asked)
        return self._child.wait()

    def _wait_for_change(self, seen: Mapping[Path, int]) -> bool:
        """Block until code changes, or a signal comes; return whether it is code."""
        while self._asked is None:
            if _changes() != seen:
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _drain(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGTERM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGTERM if self._asked is None else URGENT)

    def _send(self, number: int) -> None:
        self._asked = number
        if self._child is not None:
            self._child.send_signal(number)


def _ignore_terminal() -> None:
    """Leave what a terminal sends to both to the parent, which passes it on once."""
    for number in {signal.SIGINT, *drain_signals()} - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)


def _changes() -> dict[Path, int]:
    """Return when each file of the code was changed last, in ns."""
    files = set(autoreload.iter_all_python_module_files())
    for app in apps.get_app_configs():  # also what could not be imported
        files.update(Path(app.path).rglob("*.py"))
    return {file: time for file in files if (time := _changed_at(file)) is not None}


def _changed_at(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:  # an editor is about to write it
        return None
