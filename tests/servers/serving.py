"""Starts a server that has the ward, talks to it and ends it; it judges nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import wait_until
from tests.ports import free_port
from tests.servers import processes
from tests.servers.asking import Ask, Asker, ByHttp
from tests.servers.configuration import BINARIES, Configuration
from tests.servers.ward import journal
from tests.servers.ward.journal import Note, What
from tests.servers.ward.rounds import Answer

# A server that still runs then is hung: longer than any drain and any grace here.
LONGEST_END: Final = 120.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a server ended after its signal."""

    status: int
    seconds: float
    survivors: frozenset[int]
    """Processes of the server that lived on."""
    log: str
    journal: tuple[Note, ...]
    """Of what was handled, and of forks."""


class Server:
    """A running server; every process of it is known by its pid."""

    def __init__(
        self,
        configuration: Configuration,
        process: subprocess.Popen[bytes],
        folder: Path,
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._folder = folder
        self._configuration = configuration
        self._ask = self._find_asker(configuration)

    def _find_asker(self, configuration: Configuration) -> Asker:
        if configuration.speaks == "http":
            return ByHttp(self.check)
        from tests.servers.tasking import ByTask  # takes a second to import

        wait_until(lambda: " ready." in self.check(), configuration.name)
        return ByTask(self._folder)

    def check(self) -> str:
        """Return the log so far; fails once the server has ended."""
        log = self.log()
        assert self._process.poll() is None, log
        return log

    def ask(self, ask: Ask, *, hold: float = 0.0) -> Answer:
        """Ask whichever worker is free, and hold it for a while."""
        return self._ask(ask, hold=hold)

    def ask_all(self, ask: Ask) -> dict[int, Answer]:
        """Ask until each worker has answered; return the first answer of each."""
        workers = self._configuration.workers
        answers: dict[int, Answer] = {}

        def have_answered() -> bool:
            self.check()
            for answer in self._ask.at_once(ask, workers):
                answers.setdefault(answer["pid"], answer)
            return len(answers) >= workers

        wait_until(have_answered, f"{workers} workers")
        return answers

    def emit(self, kind: Literal["slow", "stuck", "fast"], count: int) -> Answer:
        """Have some worker emit, and be done with the request."""
        answer = self._ask(Ask("emit", kind, count))
        if self._configuration.cuts_requests_short:
            # It writes the line when nothing more is to be done.
            line = f"kind={kind}&count={count}"
            wait_until(lambda: line in self.log(), "the end of the request")
        return answer

    def read_metrics(self) -> str:
        """Return the page of whichever worker is free."""
        return self._ask.read_metrics()

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def noted(self, *whats: What) -> list[Note]:
        """Return what the ward has noted so far about these."""
        return journal.read(self._folder, *whats)

    def end(self, number: int = signal.SIGTERM) -> Ending:
        """Send a signal to the process that was started, and wait for its end."""
        family = processes.family_of(self.pid)
        began = time.monotonic()
        self._process.send_signal(number)
        status = self._wait()
        seconds = time.monotonic() - began
        survivors = _outlast(family)
        notes = tuple(self.noted("slow", "stuck", "fork"))
        return Ending(status, seconds, survivors, self.log(), notes)

    def _wait(self) -> int:
        try:
            return self._process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It does not end:\n{self.log()}") from None


def _outlast(family: set[int]) -> frozenset[int]:
    """Return who lives on a while after the server."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not any(map(processes.is_alive, family)))
    return frozenset(filter(processes.is_alive, family))


@contextmanager
def serving(
    configuration: Configuration, folder: Path, **environ: str
) -> Iterator[Server]:
    """Serve the ward as this row says; everything that it writes is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    site = {
        "DJANGO_SETTINGS_MODULE": "tests.servers.ward.settings",
        "WARD_FOLDER": str(folder),
        "PYTHONUNBUFFERED": "1",
    }
    env = environment(**{**site, **configuration.environ, **environ})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            _words_of(configuration),
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Server(configuration, process, folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _words_of(configuration: Configuration) -> list[str]:
    port = "0" if configuration.port == "any" else str(free_port())
    program, *options = (
        word.format(port=port, prefix=sys.prefix) for word in configuration.command
    )
    if program == "uwsgi":
        return [str(BINARIES / program), *options]
    return [sys.executable, "-m", program, *options]
