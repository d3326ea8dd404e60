"""Runs Python programs and servers that have this site; it asserts nothing of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.django_site.waiting import SECONDS, wait_until

ROOT: Final = Path(__file__).parents[2]
FLUSH_LONGER: Final = """
from django_gomq.bus.process.housekeeping import Housekeeping
flush = Housekeeping.flush
Housekeeping.flush = lambda self, timeout: flush(self, 60.0)
"""
"""For a program: a stop waits a second for its lines, which a busy machine may need."""
_LISTENING = re.compile(r"Listening at: (http://127\.0\.0\.1:\d+)")


def environment(**more: str) -> dict[str, str]:
    dropped = ("GOMQ_RUN", "RUN_MAIN", "PYTEST_CURRENT_TEST")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    site = {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    return {**kept, **site, **more}


def run_program(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )


class Server:
    """A gunicorn that runs this site."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = ""
        wait_until(self._is_listening, "gunicorn")
        wait_until(lambda: self.get("/gomq/livez"), "its worker")

    def _is_listening(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        found = _LISTENING.search(self._log.read_text())
        self.url = found[1] if found else ""
        return bool(found)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(SECONDS)


@contextmanager
def serving(folder: Path, *options: str, **environ: str) -> Iterator[Server]:
    """Serve this site with gunicorn on a free port of this machine."""
    log = folder / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "tests.django_site.wsgi"]
    command += ["--bind", "127.0.0.1:0", "--no-control-socket", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(**environ),
            stderr=output,
            stdout=output,
        )
        try:
            yield Server(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
