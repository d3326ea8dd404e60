from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.django_site.programs import ROOT, environment
from tests.servers import results
from tests.servers.observing import QUEUED, drains_in, warnings_in
from tests.servers.results import Result
from tests.servers.serving import LONGEST_END
from tests.servers.ward import journal

SHELL = (
    "shell",
    "-c",
    "from tests.servers.ward.rounds import *; emit_rounds('slow', 20)",
)


@dataclass(frozen=True, slots=True)
class Command:
    status: int
    log: str
    handled: int
    seconds: float


def run(folder: Path, *words: str, **environ: str) -> Command:
    """Run a command of the ward to its end."""
    folder.mkdir()
    site = {"DJANGO_SETTINGS_MODULE": "tests.servers.ward.settings"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers.ward.manage", *words],
        cwd=ROOT,
        env=environment(**site, WARD_FOLDER=str(folder), **environ),
        capture_output=True,
        text=True,
        timeout=LONGEST_END,
        check=False,
    )
    seconds = time.monotonic() - began
    handled = len(journal.read(folder, "slow"))
    return Command(done.returncode, done.stdout + done.stderr, handled, seconds)


def keep(name: str, consumers: str, queued: str, command: Command) -> None:
    result = Result(
        name=f"manage.py {name}",
        consumers=consumers,
        queued=queued,
        drained_by=" ".join(one.trigger for one in drains_in(command.log)),
        status=command.status,
        seconds=round(command.seconds, 1),
    )
    results.keep([result])


def run_both(folder: Path, *words: str) -> Command:
    """Run it with the package and without, which must end alike; return the first."""
    without = run(folder / "without", *words, WARD_WITHOUT_GOMQ="yes")
    command = run(folder / "with", *words)
    assert command.status == without.status, command.log
    assert "Traceback" not in command.log
    return command


def test_a_shell_handles_what_it_emitted_before_it_ends(tmp_path: Path) -> None:
    command = run_both(tmp_path, *SHELL)

    (drain,) = drains_in(command.log)
    assert (drain.trigger, drain.left, command.handled) == ("threading", 0, QUEUED)
    keep("shell -c", "its process", f"{QUEUED} of {QUEUED} handled", command)


@pytest.mark.parametrize(
    ("words", "instead"),
    [(("migrate",), "refused"), (("test", "tests.servers.ward"), "captured")],
)
def test_a_command_that_prepares_a_site_handles_nothing(
    words: tuple[str, ...], instead: str, tmp_path: Path
) -> None:
    command = run_both(tmp_path, *words)

    assert command.status == command.handled == 0, command.log
    assert drains_in(command.log) == []
    keep(words[0], "nowhere", instead, command)


def test_migrate_says_once_that_what_it_emits_is_refused(tmp_path: Path) -> None:
    command = run(tmp_path / "with", "migrate")

    (warning,) = warnings_in(command.log)
    assert "refused" in warning
