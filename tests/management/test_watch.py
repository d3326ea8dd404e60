"""``gomq stats --watch``: again and again, with rates, until Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS, wait_until
from tests.management.commanding import PATIENT, command, gomq
from tests.management.terminals import terminal
from tests.management.waiting_site import WaitingSite, waiting_site
from tests.ports import free_port

CLEAR = "\x1b[H\x1b[2J"


@pytest.fixture
def site() -> Iterator[WaitingSite]:
    with waiting_site() as one:
        yield one


@contextmanager
def watching(
    *arguments: str, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Watch ten times a second, and let nothing live on."""
    process = subprocess.Popen(
        command("stats", *PATIENT, "--watch", "0.1", *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C, and return the exit code."""
    process.send_signal(signal.SIGINT)
    code = process.wait(SECONDS)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    return code


def lines_of(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    output: IO[str] | None = process.stdout
    assert output is not None
    for line in output:
        yield json.loads(line)


def test_from_the_second_reading_on_there_are_rates(site: WaitingSite) -> None:
    with watching("--json", "--url", site.url) as process:
        lines = lines_of(process)
        first, second = next(lines), next(lines)
        code = interrupt(process)

    assert code == 0
    assert "handled_per_second" not in first["consumers"][0]
    assert second["consumers"][1]["handled_per_second"] == 0.0
    assert second["consumers"][1]["failed_per_second"] == 0.0
    assert second["events"][1]["published_per_second"] == 0.0


def test_the_exit_code_is_that_of_the_latest_reading(site: WaitingSite) -> None:
    with watching("--json", "--url", site.url, "--max-depth", "4") as process:
        over = next(lines_of(process))["over"]
        code = interrupt(process)

    assert len(over) == 1
    assert code == 1


def test_a_server_that_goes_away_is_told_and_waited_for(site: WaitingSite) -> None:
    with watching("--json", "--url", site.url) as process:
        lines = lines_of(process)
        next(lines)
        site.kill()
        while "error" not in (line := next(lines)):
            pass
        again = next(lines)
        code = interrupt(process)

    assert "cannot be reached" in line["error"]
    assert "error" in again
    assert code == 2


def test_what_never_answered_is_an_error_at_once() -> None:
    done = gomq("stats", "--watch", "--url", f"http://127.0.0.1:{free_port()}/")

    assert done.returncode == 2
    assert "cannot be reached" in done.stderr


def test_into_a_file_go_blocks_of_lines(site: WaitingSite) -> None:
    with watching("--url", site.url) as process:
        assert process.stdout is not None
        text = "".join(process.stdout.readline() for _ in range(40))
        interrupt(process)

    first, second = text.split("\n\n\n")[:2]
    assert "\x1b" not in text
    assert "handled/s" not in first
    assert "handled/s" in second


def test_a_terminal_is_redrawn(site: WaitingSite) -> None:
    with (
        terminal() as (end, seen),
        watching("--url", site.url, stdout=end) as process,
    ):
        wait_until(lambda: "".join(seen).count(CLEAR) >= 2, "the second picture")
        code = interrupt(process)

    assert code == 0
    assert "".join(seen).startswith(CLEAR)
    assert "clinic.statistics" in "".join(seen)
