"""The durable site of docs/databases.md works, and the workers of deployment.md."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Final

import pytest

from django_gomq.backends.database import DatabaseBackend
from tests.django_site.waiting import SECONDS, wait_until
from tests.docs.pasting import (
    ROOT,
    commands,
    environment,
    paste,
    running,
    start_project,
)
from tests.ports import free_port

PAGE: Final = ROOT / "docs" / "databases.md"
DEPLOYMENT: Final = (ROOT / "docs" / "deployment.md").read_text()
EMIT: Final = (
    "from django_gomq import emit; from django.db import transaction\n"
    "with transaction.atomic(): emit('order.paid', {'order_id': 7})\n"
)
# Wherever the page starts a worker; the words of the manifest are a list.
WORKERS: Final = {
    "a shell": r"```console\npython (manage.py gomq worker .+)\n",
    "systemd": r"ExecStart=\S+/python (manage.py gomq worker .+)\n",
    "compose": r"command: python (manage.py gomq worker .+)\n",
    "kubernetes": r'command: \["python", (.+"worker".+)\]\n',
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The page's site, with its first two commands done."""
    start_project(tmp_path)
    paste(PAGE, tmp_path, only="mysite/")
    *before, worker = commands(PAGE)
    assert [command[-1] for command in (*before, worker)] == [
        "migrate",
        "setup",
        "worker",
    ]
    for command in before:
        run(tmp_path, *command[1:])
    return tmp_path


def run(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_event_of_a_transaction_is_handled_by_the_worker_of_the_page(
    project: Path,
) -> None:
    run(project, "manage.py", "shell", "-v", "0", "-c", EMIT)

    with running(project, [sys.executable, "manage.py", "gomq", "worker"], 0) as worker:
        wait_until(lambda: "invoice for 7" in worker.log, "the invoice")


@pytest.mark.parametrize("where", WORKERS)
def test_a_worker_is_started_everywhere_as_it_can_be(project: Path, where: str) -> None:
    found = re.search(WORKERS[where], DEPLOYMENT)
    assert found, where
    words = shlex.split(found[1].replace('", "', '" "'))
    port = free_port()
    address = words[-1]
    words[-1] = f"127.0.0.1:{port}"

    with running(project, [sys.executable, *words], port) as worker:
        worker.wait_for("/metrics", "shop.invoices")

        assert address.rpartition(":")[2] == "9464"
        assert worker.end() == 0, worker.log


def test_every_option_of_the_page_is_one_of_the_backend() -> None:
    text = PAGE.read_text().partition("## Durable events")[2]
    options = re.findall(r'^                "(\w+)": .+,  # ', text, re.MULTILINE)

    assert options == list(signature(DatabaseBackend).parameters)
