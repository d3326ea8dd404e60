"""A server of somebody else: started, awaited, stopped."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from acceptance.scrape import get

START_TIMEOUT = 120
STOP_TIMEOUT = 60
LOG_TAIL = 20
INSTALL = "apt-get install --no-install-recommends prometheus prometheus-alertmanager"


class ProgramError(Exception):
    """A program is not installed, or did not start; the text says what to do."""


def find(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise ProgramError(f"{names[0]} is not installed; on Debian or Ubuntu: {INSTALL}")


class Program:
    """One process that answers `/-/ready` when it is ready."""

    def __init__(self, command: list[str], url: str, log: Path) -> None:
        self._command = command
        self.url = url
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for whoever started it.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether no process of it is left."""
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        """Stop it in order, by force if it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        finally:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            try:
                get(self.url, "/-/ready")
            except OSError:
                time.sleep(0.1)
            else:
                return
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        raise ProgramError("\n".join([f"{self._command[0]} did not start", *lines]))
