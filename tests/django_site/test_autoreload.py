"""A developer's server comes back when a mistake in consumers.py is repaired."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS, wait_until
from tests.ports import free_port

SETTINGS = """
    SECRET_KEY = "x"
    DEBUG = True
    INSTALLED_APPS = ["django_gomq", "shop"]
    ROOT_URLCONF = "shop.urls"
"""

URLS = """
    from django.http import HttpResponse
    from django.urls import path
    from django_gomq.site import brokers

    def names(request):
        return HttpResponse(",".join(one.name for one in brokers.site.consumers))

    urlpatterns = [path("", names)]
"""

RIGHT = """
    from django_gomq import consumer

    @consumer("order.paid")
    def {name}(message): ...
"""

BROKEN = {
    "a syntax error": "def broken(:",
    "a missing module": "from django_gomq import consumer\nimport sdk_that_is_missing",
    "a missing module of Channels": "import channels.generic",
    "a wrong handler": RIGHT.format(name="h").replace("message", ""),
    "another module": "from shop import services",
}


class Developing:
    """A project on disk, and the ``runserver`` that somebody develops it with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self.url = f"http://127.0.0.1:{free_port()}/"
        (folder / "shop").mkdir()
        self.write("developed", SETTINGS)
        self.write("shop/__init__", "")
        self.write("shop/urls", URLS)
        self.write("shop/services", "nothing_of_this_name")

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(dedent(text))

    def start(self) -> subprocess.Popen[bytes]:
        site = {
            "DJANGO_SETTINGS_MODULE": "developed",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}",
            "PYTHONDONTWRITEBYTECODE": "1",  # of two writes in one second
        }
        address = self.url.removeprefix("http://").rstrip("/")
        command = [sys.executable, "-m", "django", "runserver", address]
        with self.log.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(**site),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def shows(self, names: str) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=SECONDS) as response:
                return bool(response.read().decode() == names)
        except OSError:
            return False

    def wait_until(self, condition: Callable[[], object], changed: str) -> None:
        """Wait, and touch the changed file where its first change came too early.

        A reloader compares with its first look, and takes a second for the next.
        """
        pause = 1.5
        due = time.monotonic() + pause

        def holds() -> bool:
            nonlocal due, pause
            if condition():
                return True
            if time.monotonic() > due:
                pause *= 2  # on a slow machine it would be hurried from start to start
                due = time.monotonic() + pause
                (self.folder / f"{changed}.py").touch()
            return False

        wait_until(holds, f"what follows from a change of {changed}")

    def has_told(self, text: str) -> bool:
        return text in self.log.read_text()


@pytest.fixture
def developing(tmp_path: Path) -> Iterator[Developing]:
    project = Developing(tmp_path)
    processes: list[subprocess.Popen[bytes]] = []
    start = project.start

    def start_one() -> subprocess.Popen[bytes]:
        processes.append(start())
        return processes[-1]

    project.start = start_one  # type: ignore[method-assign]
    yield project
    for process in processes:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_was_broken_at_the_start_runs_once_it_is_repaired(
    developing: Developing, mistake: str
) -> None:
    developing.write("shop/consumers", BROKEN[mistake])
    developing.start()
    wait_until(lambda: developing.has_told("shop.consumers"), "the mistake")

    developing.write("shop/consumers", RIGHT.format(name="first"))

    developing.wait_until(lambda: developing.shows("shop.first"), "shop/consumers")


def test_what_is_broken_while_it_runs_runs_once_it_is_repaired(
    developing: Developing,
) -> None:
    developing.write("shop/consumers", RIGHT.format(name="first"))
    developing.start()
    wait_until(lambda: developing.shows("shop.first"), "the server")

    developing.write("shop/consumers", BROKEN["another module"])
    developing.wait_until(
        lambda: developing.has_told("services.py, line 1"), "shop/consumers"
    )
    developing.write("shop/consumers", RIGHT.format(name="second"))

    developing.wait_until(lambda: developing.shows("shop.second"), "shop/consumers")


def test_the_repair_may_be_made_in_the_other_module(developing: Developing) -> None:
    text = f"from shop import services\n{dedent(RIGHT.format(name='first'))}"
    developing.write("shop/consumers", text)
    developing.start()
    wait_until(lambda: developing.has_told("services.py, line 1"), "the mistake")

    developing.write("shop/services", "")

    developing.wait_until(lambda: developing.shows("shop.first"), "shop/services")
