"""Pastes the code of a page into a fresh project, and runs it as a reader would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.django_site.waiting import SECONDS, wait_until

ROOT: Final = Path(__file__).parents[2]
# A block that begins with a comment which names its file.
_BLOCK: Final = re.compile(
    r"```(?:python|ini|yaml)\n[#;] (\S+?\.\w+)( \(at the end\))?\n(.*?)```", re.DOTALL
)
_COMMAND: Final = re.compile(r"```console\n(.+)\n```")


def start_project(folder: Path) -> None:
    """Make what ``django-admin startproject mysite`` makes."""
    start = [sys.executable, "-m", "django", "startproject", "mysite", str(folder)]
    subprocess.run(start, check=True, env=environment(), timeout=SECONDS * 2)


def paste(page: Path, project: Path, *, only: str = "") -> list[str]:
    """Write the files that a page shows, whose names begin so; return which."""
    pasted = []
    for path, at_the_end, code in _BLOCK.findall(page.read_text()):
        if path.startswith(only):
            target = project / path
            before = target.read_text() if at_the_end else ""
            target.write_text(before + code)
            pasted.append(path)
    return pasted


def section(title: str, folder: Path) -> Path:
    """Write one section of the README into a page of its own."""
    text = (ROOT / "README.md").read_text()
    page = folder / "section.md"
    page.write_text(text.partition(f"## {title}\n")[2].partition("\n## ")[0])
    return page


def commands(page: Path) -> list[list[str]]:
    """Return the commands of one line that a page shows, each as words."""
    return [line.split() for line in _COMMAND.findall(page.read_text())]


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


class Running:
    """A server that runs a project."""

    def __init__(self, server: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._server = server
        self._url = f"http://127.0.0.1:{port}"
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> str:
        """Return a page, or nothing if there is no answer."""
        assert self._server.poll() is None, self.log
        try:
            with urllib.request.urlopen(self._url + path, timeout=SECONDS) as response:
                text: str = response.read().decode()
                return text
        except OSError:
            return ""

    def wait_for(self, path: str, text: str) -> None:
        wait_until(lambda: text in self.get(path), f"{text!r} on {path}")

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self._server.send_signal(signal.SIGTERM)
        return self._server.wait(SECONDS)


@contextmanager
def running(
    project: Path, command: Sequence[str], port: int, environ: Mapping[str, str] = {}
) -> Iterator[Running]:
    """Run a server of this project, and let nothing of it live on."""
    log = project / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=project,
            env=environment(**environ),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield Running(server, port, log)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
