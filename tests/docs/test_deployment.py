"""The snippets of the page on deployment, pasted into a fresh project, work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest

from tests.django_site.waiting import SECONDS, wait_until
from tests.docs.pasting import (
    ROOT,
    commands,
    environment,
    paste,
    running,
    section,
    start_project,
)
from tests.ports import free_port

PAGE: Final = ROOT / "docs" / "deployment.md"
COMMANDS: Final = {command[0]: command for command in commands(PAGE)}
BINARIES: Final = Path(sys.executable).parent
HANDLED: Final = re.compile(
    r"gomq_messages_processed_total\{[^}]*outcome=\"success\"\} (\d+)"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The README's site with the files of the page."""
    start_project(tmp_path)
    paste(section("Fifteen lines", tmp_path), tmp_path)
    paste(PAGE, tmp_path)
    return tmp_path


SERVERS: Final = [
    ("gunicorn", "GUNICORN_CMD_ARGS", "--bind 127.0.0.1:{port}", 0),
    ("uvicorn", "UVICORN_PORT", "{port}", -signal.SIGTERM),
    ("uwsgi", "UWSGI_HTTP_SOCKET", "127.0.0.1:{port}", 0),
]


@pytest.mark.parametrize(("name", "variable", "address", "code"), SERVERS)
def test_a_server_started_as_the_page_says_handles_what_its_requests_emit_and_drains(
    project: Path, name: str, variable: str, address: str, code: int
) -> None:
    program = BINARIES / name
    if not program.exists():
        pytest.skip(f"there is no {name}: pip install -r requirements/servers.txt")
    port = free_port()
    command = [str(program), *COMMANDS[name][1:]]
    environ = {variable: address.format(port=port)}

    with running(project, command, port, environ) as server:
        server.wait_for("/", "hello")
        for _ in range(20):
            assert server.get("/") == "hello"
        status = server.end()

        assert server.log.count("handled /") == 21
        assert "Traceback" not in server.log
    assert status == code


def test_the_workers_of_the_gunicorn_that_the_page_shows_add_up(project: Path) -> None:
    port = free_port()
    command = [str(BINARIES / "gunicorn"), *COMMANDS["gunicorn"][1:]]
    environ = {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}"}

    with running(project, command, port, environ) as server:
        server.wait_for("/", "hello")
        for _ in range(19):
            server.get("/")

        def handled() -> int:
            found = HANDLED.search(server.get("/gomq/metrics"))
            return int(found[1]) if found else 0

        wait_until(lambda: handled() == 20, "the sum of three workers")
        assert server.log.count("Booting worker") == 3


CELERY: Final = """
from celery import shared_task
from django_gomq import emit

@shared_task
def view(path):
    emit("page.viewed", {"path": path})
"""
CELERY_SETTINGS: Final = """
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": "box", "data_folder_out": "box", "control_folder": "control"
}
"""


def test_a_celery_child_drains_what_its_tasks_emitted(project: Path) -> None:
    (project / "mysite" / "tasks.py").write_text(CELERY)
    with (project / "mysite" / "settings.py").open("a") as settings:
        settings.write(CELERY_SETTINGS)
    (project / "box").mkdir()
    send = "from mysite.celery import app\nfor n in range(20): "
    send += "app.send_task('mysite.tasks.view', [f'/{n}'])"
    subprocess.run(
        [sys.executable, "-c", send],
        cwd=project,
        env=environment(),
        check=True,
        timeout=SECONDS * 2,
    )
    command = [str(BINARIES / "celery"), "-A", "mysite", "worker", "-c", "1"]
    command += ["-l", "INFO"]  # it tells which tasks are done
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]

    environ = {"PYTHONPATH": f"{ROOT}{os.pathsep}{project}"}
    with running(project, command, 0, environ) as worker:
        # Those that it has only taken from the box go back there at its end.
        wait_until(lambda: worker.log.count(" succeeded in ") == 20, "20 tasks")
        worker.end()

        # Celery writes each part of what is printed as a line of its own.
        handled = re.findall(r"\] /(\d+)$", worker.log, re.MULTILINE)
    assert sorted(map(int, handled)) == list(range(20))


def number(pattern: str) -> int:
    found = re.search(pattern, PAGE.read_text())
    assert found, pattern
    return int(found[1])


def test_the_grace_periods_of_the_page_leave_time_for_the_drain() -> None:
    drain = 10
    graceful = number(r"\ngraceful_timeout = (\d+)")

    assert drain < graceful
    assert number(r'"sleep", "(\d+)"') + graceful < number(
        r"terminationGracePeriodSeconds: (\d+)"
    )
    assert graceful < number(r"TimeoutStopSec=(\d+)")
    for of_a_worker in (
        r"gomq setup\n(?:.*\n)*?TimeoutStopSec=(\d+)",
        r"stop_grace_period: (\d+)s",
        r"replicas: 2\n(?:.*\n)*?.*terminationGracePeriodSeconds: (\d+)",
    ):
        assert drain < number(of_a_worker)
    assert drain < number(r"worker-reload-mercy = (\d+)")


@pytest.mark.parametrize("name", ["mysite.service", "mysite-worker.service"])
def test_the_units_of_systemd_are_some(project: Path, name: str) -> None:
    unit = (project / name).read_text()
    unit = unit.replace("/srv/mysite/.venv", str(Path(sys.prefix)))
    unit = unit.replace("/srv/mysite", str(project))
    (project / name).write_text(unit)
    try:
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(project / name)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no systemd-analyze: use a Linux with systemd")

    complaints = checked.stdout + checked.stderr
    assert name not in complaints, complaints


def test_the_manifest_of_kubernetes_starts_gunicorn_and_asks_pages_that_exist(
    project: Path,
) -> None:
    manifest = (project / "deployment.yaml").read_text()

    assert f'["gunicorn", "{COMMANDS["gunicorn"][1]}"' in manifest
    for page in ("livez", "readyz"):
        assert f"path: /gomq/{page}, port: 8000" in manifest


STRICT_SITE: Final = """
ALLOWED_HOSTS = ["www.example.org"]
SECURE_SSL_REDIRECT = True
MIDDLEWARE.append("django.contrib.auth.middleware.LoginRequiredMiddleware")
"""


def test_the_probes_of_the_manifest_find_a_strict_site_healthy(project: Path) -> None:
    port = free_port()
    with (project / "mysite" / "settings.py").open("a") as settings:
        settings.write(STRICT_SITE)
    manifest = (project / "deployment.yaml").read_text()
    probes = re.findall(r"Probe:\s+httpGet: {path: (\S+), port: 8000}", manifest)
    assert len(probes) == 2
    command = [str(BINARIES / "gunicorn"), *COMMANDS["gunicorn"][1:]]
    environ = {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}"}

    with running(project, command, port, environ) as server:
        server.wait_for("/gomq/livez", "alive")
        statuses = [ask_as_kubelet(path, port) for path in probes]
        other = ask_as_kubelet("/", port)

    assert statuses == [200, 200]
    assert other == 400  # the host is not allowed


def ask_as_kubelet(path: str, port: int) -> int:
    """Return the status that a probe without a host and headers of its own gets."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with closing(connection):
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", "10.42.8.201:8000")
        connection.putheader("User-Agent", "kube-probe/1.34")
        connection.putheader("Accept", "*/*")
        connection.putheader("Connection", "close")
        connection.endheaders()
        return connection.getresponse().status
