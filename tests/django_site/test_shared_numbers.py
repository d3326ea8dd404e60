"""Worker processes of one site whose numbers add up, or have a port each."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.test import Client

from django_gomq import emit, get_broker
from django_gomq.observability.metrics import http as serving
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import hold, listen, wait_quiet
from tests.django_site.programs import ROOT, environment, run_program
from tests.django_site.waiting import SECONDS, wait_until
from tests.ports import free_range

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which this process and those that it starts share numbers."""
    made = tmp_path / "numbers"
    made.mkdir()
    monkeypatch.setenv(DIRECTORY, str(made))
    return made


def number(page: str, name: str) -> float:
    """Return the sum over all series of one name."""
    found = re.findall(rf"^gomq_{name}(?:\{{.*\}})? (\S+)$", page, re.MULTILINE)
    return sum(map(float, found))


def test_a_page_of_this_site_shows_all_processes(
    live_site: UseSite, folder: Path
) -> None:
    listen("page.viewed")
    live_site()
    done = run_program(EMITS.format(count=20), **{DIRECTORY: str(folder)})
    assert done.returncode == 0, done.stderr
    emit("page.viewed")
    wait_quiet()

    page = Client().get("/gomq/metrics").content.decode()

    assert number(page, "messages_published_total") == 21
    assert number(page, "processes") == 1


EMITS = """
import sys
sys.argv = ["manage.py", "import_records"]
from django_gomq import consumer, emit

@consumer("page.viewed", name="seen", overflow="backpressure")
def write(message):
    pass

import django
django.setup()
for number in range({count}):
    assert emit("page.viewed", number, timeout=60)
"""


def test_numbers_are_shared_once_a_second_without_a_scrape(
    live_site: UseSite, folder: Path
) -> None:
    seen = listen("page.viewed")
    live_site()

    emit("page.viewed")

    seen.wait_for(1)
    wait_until(lambda: list(folder.glob("counter_gomq-0.db")), "numbers")


def test_what_the_stop_drops_is_in_the_last_numbers(
    live_site: UseSite, folder: Path
) -> None:
    from django_gomq import site

    held = hold("page.viewed")
    live_site(DRAIN_TIMEOUT=0.05)
    for _ in range(3):
        emit("page.viewed")
    assert held.entered.wait(SECONDS)

    site.close()
    held.release.set()
    site.close()

    live_site()
    page = Client().get("/gomq/metrics").content.decode()
    assert number(page, "messages_published_total") == 3
    assert number(page, "messages_dropped_total") == 2


@pytest.mark.parametrize("command", ["migrate", "import_records"])
def test_a_command_that_emits_nothing_leaves_no_file(
    folder: Path, command: str
) -> None:
    done = run_program(NOTHING.format(command=command))

    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == []


NOTHING = """
import sys
sys.argv = ["manage.py", "{command}"]
import django
django.setup()
"""


def test_a_command_that_was_refused_leaves_that_it_was(
    use_site: UseSite, folder: Path
) -> None:
    program = NOTHING.format(command="migrate")
    done = run_program(f"{program}\nfrom django_gomq import emit\nemit('clinic.visit')")
    use_site()

    page = Client().get("/gomq/metrics").content.decode()

    assert done.returncode == 0, done.stderr
    assert number(page, "messages_refused_total") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="gunicorn is tried on Linux alone")
def test_any_worker_of_a_server_shows_all_and_a_killed_one_leaves_no_depth(
    tmp_path: Path, folder: Path
) -> None:
    pytest.importorskip("gunicorn", reason="pip install gunicorn")

    log = tmp_path / "gunicorn.log"
    with two_workers(log) as port:
        workers = save_until_two_answer(port)
        pages = [page_with(port, len(workers)) for _ in range(6)]
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: log.read_text().count("Booting worker") == 3, "a new one")
        after = [page_with(port, len(workers)) for _ in range(6)]

    assert {number(page, "processes") for page in pages} == {2}
    assert {number(page, "processes") for page in after} <= {1, 2}
    for page in pages + after:
        assert number(page, "telemetry_errors_total") == 0
        assert number(page, "channel_depth") == 0


@contextmanager
def two_workers(log: Path) -> Iterator[int]:
    """Serve this site with two processes, and return the port."""
    command = [sys.executable, "-m", "gunicorn", "tests.django_site.wsgi", "--preload"]
    command += ["--bind", "127.0.0.1:0", "--no-control-socket", "--workers", "2"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=output, stderr=output
        )
    listening = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
    try:
        wait_until(lambda: listening.search(log.read_text()), "gunicorn")
        found = listening.search(log.read_text())
        assert found is not None
        yield int(found[1])
        server.terminate()
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.wait()


def save_until_two_answer(port: int) -> list[int]:
    """Save by requests until each worker took some; return who took each."""
    took: list[int] = []

    def is_done() -> bool:
        saved = read(port, f"save?record={len(took) + 1}")
        took.append(int(json.loads(saved)["pid"]))
        return len(set(took)) == 2

    wait_until(is_done, "both workers")
    return took


def page_with(port: int, saved: int) -> str:
    """Return a page that has all that was saved, and handled; what it is at once."""
    pages = []

    def has_all() -> bool:
        pages.append(read(port, "gomq/metrics"))
        return number(pages[-1], "messages_processed_total") == saved

    wait_until(has_all, "all that was handled")
    assert number(pages[-1], "messages_published_total") == saved
    return pages[-1]


def read(port: int, path: str = "metrics", **headers: str) -> str:
    url = f"http://127.0.0.1:{port}/{path}"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        text: str = response.read().decode()
        return text


def port_in_use() -> int | None:
    server = serving._server
    return server.port if server is not None else None


def test_a_process_serves_its_own_numbers_once_its_bus_runs(
    live_site: UseSite, folder: Path
) -> None:
    seen = listen("page.viewed")
    live_site(METRICS={"PORT_RANGE": list(free_range(1))})
    before = port_in_use()
    done = run_program(EMITS.format(count=20), **{DIRECTORY: str(folder)})
    assert done.returncode == 0, done.stderr

    emit("page.viewed")
    seen.wait_for(1)
    wait_quiet()
    wait_until(port_in_use, "a port")

    port = port_in_use()
    assert port is not None
    page = read(port, accept="application/openmetrics-text; version=1.0.0")
    assert before is None
    assert number(page, "messages_published_total") == 1
    assert page.count("gomq_processes 1.0") == 1
    assert "python_info" in page
    assert page.endswith("# EOF\n")


def test_a_process_serves_from_its_first_request_on(live_site: UseSite) -> None:
    live_site(METRICS={"PORT_RANGE": list(free_range(1))})

    Client().get("/gomq/livez")

    wait_until(port_in_use, "a port")
    assert not get_broker().is_started


def test_a_port_asks_for_the_token(live_site: UseSite) -> None:
    token = {"ACCESS": "token", "TOKEN": "long and random"}
    live_site(METRICS={"PORT_RANGE": list(free_range(1)), **token})
    Client().get("/gomq/livez")
    wait_until(port_in_use, "a port")
    port = port_in_use()
    assert port is not None

    with pytest.raises(urllib.error.HTTPError) as refused:
        read(port)
    refused.value.close()

    assert refused.value.code == 401
    assert "gomq_threads" in read(port, authorization="Bearer long and random")


def threads_begun_by(*calls: Callable[[], object]) -> set[str]:
    before = set(threading.enumerate())  # other tests' threads may be about to end
    for call in calls:
        call()
    return {one.name for one in threading.enumerate() if one not in before}


def request() -> None:
    Client().get("/gomq/livez")


def test_no_port_is_opened_in_tests(use_site: UseSite) -> None:
    use_site(METRICS={"PORT_RANGE": list(free_range(1))})

    names = threads_begun_by(request, get_broker().start, serving.tick)

    assert "gomq-handler-1" in names
    assert "gomq-metrics" not in names


def test_a_port_is_opened_where_consumers_run_and_only_there(
    live_site: UseSite,
) -> None:
    brokers = {"default": {"RUN": "never"}}
    live_site(METRICS={"PORT_RANGE": list(free_range(1))}, BROKERS=brokers)

    where_none_runs = threads_begun_by(request, serving.tick)
    where_they_were_started = threads_begun_by(get_broker().start, request)

    assert "gomq-metrics" not in where_none_runs
    assert "gomq-metrics" in where_they_were_started


def test_other_settings_close_the_port(live_site: UseSite) -> None:
    live_site(METRICS={"PORT_RANGE": list(free_range(1))})
    Client().get("/gomq/livez")
    wait_until(port_in_use, "a port")

    live_site()

    Client().get("/gomq/livez")
    assert serving._server is None
