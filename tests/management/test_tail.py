"""``gomq tail``: what all processes handle, line by line, while somebody looks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import pytest

from tests.django_site.programs import ROOT, environment, run_program
from tests.django_site.waiting import SECONDS, wait_until
from tests.management.terminals import terminal

_SITE: Final = """
import os, sys, threading, time
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "django_gomq",
    ],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["NAME"],
        "OPTIONS": {"timeout": 60, "init_command": "PRAGMA journal_mode=WAL"},
    }},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    GOMQ={"DEAD_LETTERS": {"REDACT": "__main__.redact"}},
    USE_TZ=True,
)
def redact(data):
    return {**data, "card": "****"}
sys.argv[0] = "manage.py"
import django
django.setup()
from django_gomq import consumer, emit
LONG = "billing." + "very_long_name_of_an_event." * 5 + "paid"
@consumer("billing.*", name="billing.ledger_of_all_that_was_paid_in_the_house")
def pay(message):
    if message.data["n"] % 2:
        raise ValueError("no")
@consumer("lab.asked", name="lab.analysis")
def analyse(message):
    pass
"""
MIGRATE: Final = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
"""
EMIT: Final = """
sys.argv[:] = ["emitter"]
never, n = threading.Event(), 0
while not never.wait(0.05):
    n += 1
    emit(LONG, {"n": n, "card": "4111"})
    emit("lab.asked", {"n": n, "card": "4111"})
"""
RUN: Final = """
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "gomq", "tail", *sys.argv[1:]])
"""


def name_of(folder: Path) -> dict[str, str]:
    return {"NAME": str(folder / "db.sqlite3"), "DJANGO_SETTINGS_MODULE": ""}


@contextmanager
def started(
    code: str, folder: Path, *arguments: str, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run a program of the site until the end of the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SITE + code, *arguments],
        cwd=ROOT,
        env=environment(**name_of(folder)),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def migrate(folder: Path) -> None:
    done = run_program(_SITE + MIGRATE, **name_of(folder))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A site of two processes that emit, and handle, all the while."""
    folder = tmp_path_factory.mktemp("site")
    migrate(folder)
    with started(EMIT, folder), started(EMIT, folder):
        yield folder


def interrupt(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C, and return the exit code."""
    process.send_signal(signal.SIGINT)
    code = process.wait(SECONDS)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    return code


def samples(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    output: IO[str] | None = process.stdout
    assert output is not None
    for line in output:
        yield json.loads(line)


def tail(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-c", _SITE + RUN, *arguments],
        cwd=ROOT,
        env=environment(**name_of(folder)),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )


def test_it_tells_what_two_processes_handle_until_ctrl_c(two_processes: Path) -> None:
    with started(RUN, two_processes, "--json") as process:
        found = samples(process)
        seen: list[dict[str, Any]] = []
        while len({one["pid"] for one in seen}) < 2 or len(seen) < 40:
            seen.append(next(found))
        code = interrupt(process)

    assert code == 0
    assert set(seen[0]) == {
        *("ended", "broker", "event", "consumer", "outcome", "reason", "wait"),
        *("duration", "attempt", "message", "trace", "host", "pid"),
    }
    assert {one["consumer"] for one in seen} == {
        "lab.analysis",
        "billing.ledger_of_all_that_was_paid_in_the_house",
    }
    assert {(one["outcome"], one["reason"]) for one in seen} == {
        ("ack", ""),
        ("dead_letter", "ValueError"),
    }
    handled = [(one["message"], one["consumer"], one["attempt"]) for one in seen]
    assert len(handled) == len(set(handled))


def test_of_each_process_it_tells_five_a_second_at_most(two_processes: Path) -> None:
    with started(RUN, two_processes, "--json") as process:
        found = samples(process)
        seen = [next(found) for _ in range(60)]
        interrupt(process)

    for pid in {one["pid"] for one in seen}:
        times = [one["ended"] for one in seen if one["pid"] == pid]
        # Those of a window that moves may be of two seconds of the process.
        most = max(sum(at <= one < at + 1 for one in times) for at in times)
        assert most <= 10
        assert len(times) <= 5 * (max(times) - min(times) + 2)


def test_filters_are_of_events_and_of_consumers(two_processes: Path) -> None:
    told = []
    for options in (["--event", "lab.*"], ["--consumer", "lab.analysis"]):
        with started(RUN, two_processes, "--json", *options) as process:
            found = samples(process)
            told += [next(found)["event"] for _ in range(6)]
            interrupt(process)

    assert set(told) == {"lab.asked"}


def test_data_are_told_to_whom_asks_and_redacted(two_processes: Path) -> None:
    with started(RUN, two_processes, "--json", "--payload") as process:
        found = samples(process)
        one = next(one for one in found if "payload" in one)
        interrupt(process)

    assert json.loads(one["payload"])["card"] == "****"


def test_lines_fit_80_columns_and_have_no_colour_in_a_file(two_processes: Path) -> None:
    with started(RUN, two_processes, "--payload", "--event", "billing.*") as process:
        assert process.stdout is not None
        lines: list[str] = []
        while sum(
            "dead letter" in line for line in lines
        ) < 2 or '"card": ' not in "".join(lines):
            lines.append(process.stdout.readline())
        interrupt(process)

    assert lines[0].startswith("Messages of all processes, up to 5 a second of each")
    assert max(len(line.rstrip("\n")) for line in lines) <= 80
    text = "".join(lines)
    assert "\x1b" not in text
    assert "billing.ledger_of_all_that_was_paid_in_the_house" in text
    assert '"card": "****"' in text


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_has_colours_unless_somebody_wants_none(
    two_processes: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_color: str,
    coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as (end, seen), started(RUN, two_processes, stdout=end) as process:
        wait_until(lambda: "dead letter" in "".join(seen), "a dead letter")
        interrupt(process)

    assert ("\x1b[" in "".join(seen)) is coloured


def test_it_ends_after_so_many_seconds(two_processes: Path) -> None:
    done = tail(two_processes, "--seconds", "0.2")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Messages of all processes")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--event", "Lab"], "'Lab' is no event type and no pattern"),
        (["--consumer", "lab.analisis"], "did you mean lab.analysis"),
        (["--seconds", "0"], "0 seconds are too few"),
    ],
)
def test_wrong_options_are_told(
    two_processes: Path, options: list[str], text: str
) -> None:
    done = tail(two_processes, *options)

    assert done.returncode == 2
    assert text in done.stderr


def test_where_no_process_runs_it_says_so(tmp_path: Path) -> None:
    migrate(tmp_path)

    done = tail(tmp_path, "--seconds", "11")

    assert "No process tells that it runs." in done.stdout


def test_without_the_tables_it_says_what_to_do(tmp_path: Path) -> None:
    done = tail(tmp_path)

    assert done.returncode == 2
    assert "run manage.py migrate gomq, and start the processes again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    migrate(tmp_path)
    (tmp_path / "db.sqlite3").write_text("this is no database, whatever it is")

    done = tail(tmp_path)

    assert done.returncode == 2
    assert "The database cannot be reached" in done.stderr
