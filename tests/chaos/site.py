"""A site on one server, whose processes are started, killed and watched."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.chaos import journal
from tests.chaos.history import is_slow
from tests.chaos.target import Target

ROOT: Final = Path(__file__).parents[2]
_MANAGE: Final = ("-m", "django")
PATIENCE: Final = 240.0
"""Seconds for what takes a few on an idle machine."""
_SLOW_WITHIN: Final = 10.0
_AWAY_SECONDS: Final = 2.0
"""A crashed server is away for up to so long: less than leases last."""


class ChaosSite:
    """Two workers and two emitters, of which now and then one is killed."""

    def __init__(self, target: Target, folder: Path, lease: float) -> None:
        self._target, self._folder, self._lease = target, folder, lease
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "GOMQ_CHAOS_DATABASE": json.dumps(dict(target.database), default=str),
            "GOMQ_CHAOS_REDIS": target.url,
            "GOMQ_CHAOS_FOLDER": str(folder),
            "GOMQ_CHAOS_LEASE": str(lease),
            "GOMQ_CHAOS_PAUSE": "0.025",
        }
        os.environ["GOMQ_CHAOS_FOLDER"] = str(folder)
        self._log = (folder / "log").open("ab")
        self.workers: list[subprocess.Popen[bytes]] = []
        self.emitters: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> str:
        """The last that all processes have said."""
        return (self._folder / "log").read_text(errors="replace")[-5000:]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *words],
            env=self._environ,
            cwd=ROOT,
            stdout=self._log,
            stderr=self._log,
        )

    def prepare(self) -> None:
        """Make the tables, and record the consumers."""
        for words in (("migrate", "--run-syncdb", "-v0"), ("gomq", "setup")):
            process = self._start(*_MANAGE, *words)
            assert process.wait(PATIENCE) == 0, self.log

    def start_worker(self) -> None:
        """Start one more worker."""
        self.workers.append(self._start(*_MANAGE, "gomq", "worker"))

    def start_emitter(self) -> None:
        """Start one more emitter."""
        self.emitters.append(self._start("-m", "tests.chaos.emitter"))

    def run_and_kill(self, kills: int) -> None:
        """Kill workers at random moments, and now and then an emitter.

        Some workers are stalled, and a server that can be is crashed.
        """
        for _ in range(2):
            self.start_worker()
            self.start_emitter()
        for number in range(kills):
            self._kill(self.workers, waits=number % 10 != 0)
            self.start_worker()
            if number % 5 == 0:
                self._kill(self.emitters, waits=False)
                self.start_emitter()
            if number % 20 == 5:
                self._stall()
            if number % 10 == 3:
                self._crash()

    def _crash(self) -> None:
        """Crash the server while all workers are at work, and start it again."""
        crashed = self._target.crashed()
        if crashed is None:
            return
        for worker in self.workers:
            self._wait_until_at_work(worker)
        time.sleep(random.uniform(0, 0.8))
        journal.write("crash")
        with crashed:
            time.sleep(random.uniform(0, _AWAY_SECONDS))
        journal.write("up")

    def _stall(self) -> None:
        """Stop a worker until another one has begun what it had in work.

        Then it goes on, and settles what is not its any more.
        """
        victim, other = self._with_slow_work()
        journal.write("stall", "", "", pid=victim.pid)
        victim.send_signal(signal.SIGSTOP)
        try:
            seen = self._starts(other)
            held = journal.in_work(self._folder, victim.pid)
            # Then it settles what the other one is still at.
            held = {each for each in held if is_slow(*each)} or held
            if self._target.is_writable():  # else all others stand still as well
                self._wait(3 * self._lease, lambda: held & self._starts(other) - seen)
        finally:
            victim.send_signal(signal.SIGCONT)
            journal.write("resume", "", "", pid=victim.pid)

    def _with_slow_work(self) -> tuple[subprocess.Popen[bytes], ...]:
        """Return both workers, first one that works at what takes long, if one does."""
        found = list(self.workers)
        random.shuffle(found)

        def has_slow(process: subprocess.Popen[bytes]) -> bool:
            held = journal.in_work(self._folder, process.pid)
            return any(is_slow(*each) for each in held)

        self._wait(_SLOW_WITHIN, lambda: any(map(has_slow, found)))
        return tuple(sorted(found, key=lambda process: not has_slow(process)))

    def _starts(self, process: subprocess.Popen[bytes]) -> set[tuple[str, str]]:
        return {
            (each.consumer, each.message)
            for each in journal.read_of(self._folder, process.pid)
            if each.kind == "start"
        }

    def _wait(self, seconds: float, condition: Callable[[], object]) -> bool:
        """Return whether it came to hold within so many seconds."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _kill(self, processes: list[subprocess.Popen[bytes]], *, waits: bool) -> None:
        """Kill one at a random moment, mostly when it has begun to work."""
        victim = random.choice(processes)
        if waits:
            self._wait_until_at_work(victim)
        time.sleep(random.uniform(0, 0.8))
        assert victim.poll() is None, self.log
        victim.kill()
        victim.wait()
        processes.remove(victim)
        # After it, as nothing of it can be later.
        journal.write("kill", "", "", pid=victim.pid)

    def _wait_until_at_work(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + PATIENCE
        while not journal.has_handled(self._folder, process.pid):
            assert process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.01)

    def stop_emitters(self) -> None:
        """End the load."""
        for process in self.emitters:
            process.kill()
            process.wait()
        self.emitters.clear()

    def stop_workers(self) -> list[int]:
        """Have the workers drain and stop; return their exit codes."""
        for process in self.workers:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE) for process in self.workers]
        self.workers.clear()
        return codes

    def close(self) -> None:
        """End everything."""
        for process in [*self.workers, *self.emitters]:
            process.kill()
            process.wait()
        self._log.close()
