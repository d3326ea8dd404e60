"""A child process as its parent sees it: asked for a run, and frozen between runs."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.plan import Case

Answer = Mapping[str, Any]
PATIENCE = 90.0  # seconds; longer than any case waits itself
THAW = 0.02  # seconds for threads that were due meanwhile to run once


def _as_users_have_it(folder: str) -> dict[str, str]:
    # Without kept bytecode every start compiles the package again: 60 ms.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "TMPDIR": folder}


class Child:
    """One case in its process. Between its turns it is stopped, and disturbs nobody."""

    def __init__(self, case: Case, log: Path) -> None:
        self._log = log.open("a")
        # A process that is killed removes no files: its parent does.
        self._folder = tempfile.TemporaryDirectory(
            prefix="gomq-bench-", ignore_cleanup_errors=True
        )
        order = json.dumps({"target": case.target, "options": dict(case.options)})
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [case.python, "-m", "benchmarks.child", order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_as_users_have_it(self._folder.name),
        )
        self._failure: Answer | None = None

    def wait_until_ready(self) -> None:
        """Wait until the case is made, and freeze it."""
        self._note(self._read())
        self._signal(signal.SIGSTOP)

    def run(self) -> Answer:
        """Return the metrics of one run, or ``{"error": ...}``; never raises."""
        if self._failure is not None:
            return self._failure
        self._signal(signal.SIGCONT)
        time.sleep(THAW)
        answer = self._ask()
        self._signal(signal.SIGSTOP)
        return answer

    def _ask(self) -> Answer:
        try:
            print("run", file=_pipe(self._process.stdin), flush=True)
        except BrokenPipeError:
            return self._note({"error": "the process has ended"})
        return self._read()

    def _read(self) -> Answer:
        output = _pipe(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            if not selector.select(PATIENCE):
                return self._note({"error": f"no answer within {PATIENCE:.0f} s"})
        line = output.readline()
        if not line:
            return self._note({"error": "the process has ended"})
        answer: Answer = json.loads(line)
        return answer

    def _note(self, answer: Answer) -> Answer:
        if "error" in answer:  # it could not start, or is gone: no use to ask again
            self._failure = answer
        return answer

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, number)

    def close(self) -> None:
        """End the process, whatever it does, and remove its files."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            _pipe(stream).close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise ValueError("The process was made without this pipe.")
    return stream
