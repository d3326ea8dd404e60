"""The commands of docs/commands.md, in the project that the page shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.django_site.waiting import SECONDS, wait_until
from tests.docs.pasting import (
    ROOT,
    Running,
    environment,
    paste,
    running,
    start_project,
)
from tests.ports import free_port

PAGE: Final = ROOT / "docs" / "commands.md"
ADDRESS: Final = "127.0.0.1:8000"
STATS: Final = f"gomq stats --timeout {SECONDS:g}"
_SHOWN: Final = re.compile(r"```console\n\$ (python manage\.py .+)\n((?:.*\n)*?)```")
# Times differ from run to run, and with them how wide their columns are.
_TIME: Final = re.compile(r"\d+(\.\d+)?(e-\d+)?(ms|s)\b")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    start_project(folder)
    paste(PAGE, folder, only="mysite/")
    return folder


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[tuple[Running, int]]:
    """The project's server, after four visits whose events are handled."""
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with running(project, command, port) as one:
        one.wait_for("/", "hello")
        for path in ("/pay/1", "/pay/2", "/click/liked"):
            assert one.get(path)
        source = f"http://127.0.0.1:{port}/gomq/metrics"
        wait_until(lambda: _handled(project, source) == 4, "the events of the visits")
        yield one, port


def run(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command.replace("python", shlex.quote(sys.executable), 1)],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )


def _handled(project: Path, source: str) -> int:
    done = run(project, f"python manage.py {STATS} --json --url {source}")
    return sum(one["handled"] for one in json.loads(done.stdout)["consumers"])


def shown(subcommand: str) -> list[tuple[str, str]]:
    """Return the commands of the page and their outputs, or write the outputs down."""
    found = _SHOWN.findall(PAGE.read_text())
    return [
        one for one in found if one[0].startswith(f"python manage.py gomq {subcommand}")
    ]


def check(command: str, output: str, said: str) -> None:
    if os.environ.get("GOMQ_WRITE_GOLDEN"):
        before = f"$ {command}\n"
        page = PAGE.read_text()
        PAGE.write_text(page.replace(before + output, before + said, 1))
        return
    assert lines_of(said) == lines_of(output)


def lines_of(text: str) -> list[str]:
    plain = _TIME.sub("TIME", text)
    return [" ".join(line.split()) for line in plain.splitlines()]


def test_list_says_what_the_page_shows(project: Path) -> None:
    commands = shown("list")
    assert len(commands) == 2

    for command, output in commands:
        done = run(project, command)

        assert done.returncode == 0, done.stderr
        check(command, output, done.stdout)


def test_stats_say_what_the_page_shows(
    project: Path, server: tuple[Running, int]
) -> None:
    commands = shown("stats")
    assert len(commands) == 2

    for command, output in commands:
        here = f"127.0.0.1:{server[1]}"
        patient = command.replace("gomq stats", STATS)
        done = run(project, patient.replace(ADDRESS, here))

        assert done.returncode == 0, done.stderr
        check(command, output, done.stdout.replace(here, ADDRESS))


def test_every_key_of_the_page_is_there(
    project: Path, server: tuple[Running, int]
) -> None:
    listed = json.loads(run(project, "python manage.py gomq list --format json").stdout)
    source = f"http://127.0.0.1:{server[1]}/gomq/metrics"
    stats = f"python manage.py {STATS} --json --url {source}"
    counted = json.loads(run(project, stats).stdout)
    page = PAGE.read_text()

    for document in (listed, counted):
        for key, value in document.items():
            rows = value if isinstance(value, list) else []
            keys = {
                key,
                *(name for row in rows if isinstance(row, dict) for name in row),
            }
            assert [one for one in keys if f"`{one}`" not in page] == []
