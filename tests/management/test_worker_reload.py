"""Developers: a worker starts anew when code changes, and runserver needs none."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.django_site.programs import ROOT
from tests.django_site.waiting import SECONDS, wait_until
from tests.management.durable_site import DurableSite
from tests.ports import free_port

CODE = """
    from pathlib import Path
    from django_gomq import consumer

    @consumer("job.edited", name="edited.job")
    def edited(message):
        with (Path(__file__).parents[1] / "notes").open("a") as notes:
            notes.write(f"{version} {{message.data}} 0\\n")
"""


@pytest.fixture
def edited(bare: DurableSite) -> DurableSite:
    """A site with an app in its folder, that is migrated and set up."""
    folder = bare.folder / "edited"
    folder.mkdir()
    (folder / "__init__.py").touch()
    write(folder, "first")
    bare.more = {
        "DURABLE_APPS": "edited",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{bare.folder}",
        "PYTHONDONTWRITEBYTECODE": "1",  # of two writes in one second
        "DURABLE_DEBUG": "1",
    }
    bare.set_up()
    return bare


def write(folder: Path, version: str) -> None:
    code = dedent(CODE).format(version=version)
    (folder / "consumers.py").write_text(code)


def wait_while_touching(condition: Callable[[], bool], path: Path) -> None:
    """Wait; a reloader compares with its first look, which may come late."""
    pause = 1.5
    due = time.monotonic() + pause

    def holds() -> bool:
        nonlocal due, pause
        if condition():
            return True
        if time.monotonic() > due:
            pause *= 2
            due = time.monotonic() + pause
            path.touch()
        return False

    wait_until(holds, f"what follows from a change of {path}")


def test_with_debug_a_worker_goes_on_with_the_code_that_was_saved(
    edited: DurableSite,
) -> None:
    consumers = edited.folder / "edited" / "consumers.py"
    with edited.worker() as worker:
        edited.emit("job.edited", "1")
        edited.wait_for("first 1")

        write(edited.folder / "edited", "second")
        wait_while_touching(lambda: worker.log.count("runs:") > 1, consumers)
        edited.emit("job.edited", "2")

        edited.wait_for("second 2")


def test_without_reload_a_worker_with_debug_drains_on_sigterm(
    edited: DurableSite,
) -> None:
    with edited.worker("--noreload") as worker:
        assert worker.end() == 0
        assert "everything that was taken was finished" in worker.log


def test_with_debug_too_a_broken_set_up_ends_the_worker(bare: DurableSite) -> None:
    bare.more = {"DURABLE_DEBUG": "1"}

    done = bare.gomq("worker")

    assert done.returncode == 1
    assert "run manage.py migrate gomq" in done.stderr


def test_what_a_change_leaves_to_run_is_told_and_waited_for(
    edited: DurableSite,
) -> None:
    consumers = edited.folder / "edited" / "consumers.py"
    with edited.worker() as worker:
        text = dedent(CODE).format(version="named")
        consumers.write_text(text.replace("edited.job", "edited.unrecorded"))
        told = "Not recorded: edited.unrecorded. Run manage.py gomq setup. It begins"
        wait_while_touching(lambda: told in worker.log, consumers)

        edited.gomq("setup")
        wait_until(lambda: worker.log.count("runs:") > 1, "the worker")

        assert worker.end() == 0


@pytest.mark.parametrize("name", ["consumers.py", "models.py"])
def test_a_file_with_an_error_is_waited_for_until_it_is_mended(
    edited: DurableSite, name: str
) -> None:
    file = edited.folder / "edited" / name
    text = file.read_text() if file.exists() else ""
    file.write_text(text)
    with edited.worker() as worker:
        file.write_text(f"{text}\ndef half(:\n")
        wait_while_touching(lambda: "waits for a change" in worker.log, file)
        assert "SyntaxError" in worker.log

        file.write_text(text)
        wait_until(lambda: worker.log.count("runs:") > 1, "the worker")
        edited.emit("job.edited", "mended")
        edited.wait_for("first mended")


def test_a_worker_that_waits_for_a_change_ends_on_a_signal(edited: DurableSite) -> None:
    consumers = edited.folder / "edited" / "consumers.py"
    with edited.worker() as worker:
        consumers.write_text("def half(:\n")
        wait_while_touching(lambda: "waits for a change" in worker.log, consumers)

        # 0 where the last touch has begun another process, which the signal ends.
        assert worker.end() in (0, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("from_terminal", [True, False])
def test_with_debug_a_signal_drains_too(
    edited: DurableSite, number: int, from_terminal: bool
) -> None:
    edited.emit("job.held", "a")
    with edited.worker() as worker:
        edited.wait_for("begun a")

        send = os.killpg if from_terminal and number == signal.SIGINT else os.kill
        send(worker.process.pid, number)
        worker.wait_for("Stopping")
        (edited.folder / "a").touch()

        assert worker.process.wait(SECONDS) == 0
        assert "ended a" in {text for text, _ in edited.notes}
        assert "everything that was taken was finished" in worker.log


def test_with_debug_another_ctrl_c_stops_at_once(edited: DurableSite) -> None:
    edited.emit("job.held", "a")
    with edited.worker(DRAIN_TIMEOUT=2 * SECONDS) as worker:
        edited.wait_for("begun a")
        os.killpg(worker.process.pid, signal.SIGINT)
        worker.wait_for("Stopping")
        os.killpg(worker.process.pid, signal.SIGINT)

        assert worker.process.wait(SECONDS) == 1
        assert "Stopped with 1 handlers still at work" in worker.log


def test_a_change_lets_what_is_in_work_finish(edited: DurableSite) -> None:
    edited.emit("job.held", "a")
    with edited.worker(DRAIN_TIMEOUT=2 * SECONDS) as worker:
        edited.wait_for("begun a")
        write(edited.folder / "edited", "second")
        path = edited.folder / "edited" / "consumers.py"
        wait_while_touching(lambda: "Stopping" in worker.log, path)
        (edited.folder / "a").touch()

        wait_until(lambda: worker.log.count("runs:") > 1, "the worker")
        assert [text for text, _ in edited.notes] == ["begun a", "ended a"]


def test_what_is_reloaded_ends_with_what_reloads_it(edited: DurableSite) -> None:
    with edited.worker() as worker:
        worker.end(signal.SIGKILL)

        wait_until(lambda: "Stopped; everything" in worker.log, "its end")


# ------------------------------------------------------------ runserver


@pytest.fixture
def serve(bare: DurableSite) -> Any:
    """Runs ``runserver`` of the site, and asks it."""
    port = free_port()

    class Serving:
        def run(self, *options: str, **gomq: Any) -> Any:
            line = [sys.executable, "-m", "django", "runserver", str(port), *options]
            return bare.running(line, **gomq)

        def get(self, path: str) -> str:
            try:
                url = f"http://127.0.0.1:{port}{path}"
                with urllib.request.urlopen(url, timeout=SECONDS) as response:
                    text: str = response.read().decode()
                    return text
            except OSError:
                return ""

    return Serving()


def test_under_runserver_consumers_are_recorded_and_run_without_a_request(
    bare: DurableSite, serve: Any
) -> None:
    bare.migrate()

    with serve.run():
        wait_until(lambda: "jobs.done" in recorded(bare), "the consumers")
        bare.emit("job.asked", "1")
        bare.wait_for("done 1", "seen 1")


def test_without_reload_they_run_from_the_first_request(
    bare: DurableSite, serve: Any
) -> None:
    bare.migrate()

    with serve.run("--noreload") as server:
        wait_until(lambda: serve.get("/do/7"), "the server")
        bare.wait_for("done 7", "seen 7")

        assert server.end() == -signal.SIGTERM


def test_runserver_says_what_its_consumers_wait_for_and_goes_on_when_it_is_done(
    bare: DurableSite, serve: Any
) -> None:
    with serve.run("--noreload") as server:
        wait_until(lambda: serve.get("/nosuch") or "/nosuch" in server.log, "an answer")
        server.wait_for("run manage.py migrate gomq")

        bare.migrate()
        wait_until(lambda: serve.get("/do/7"), "the server")
        bare.wait_for("done 7")


@pytest.mark.parametrize("run", ["never", "worker"])
def test_runserver_leaves_consumers_alone_that_are_to_run_elsewhere(
    bare: DurableSite, serve: Any, run: str
) -> None:
    bare.migrate()
    durable = {"BACKEND": "django_gomq.backends.database.DatabaseBackend", "RUN": run}
    with serve.run("--noreload", BROKERS={"default": durable, "local": {}}) as server:
        wait_until(lambda: serve.get("/do/7"), "the server")
        bare.emit("job.asked", "8")  # takes longer than to handle the first
        server.end()

    assert {"done 7", "done 8"}.isdisjoint(text for text, _ in bare.notes)


NAMES = """
import django
django.setup()
from django_gomq.models import RecordedConsumer
print(*RecordedConsumer.objects.values_list("name", flat=True))
"""


def recorded(site: DurableSite) -> str:
    """Return the names in the table of consumers."""
    return site.run([sys.executable, "-c", NAMES]).stdout
