from __future__ import annotations

import os
import sys
from http.client import HTTPException
from json import JSONDecodeError
from pathlib import Path

import pytest

from tests.django_site.programs import ROOT
from tests.django_site.waiting import wait_until
from tests.servers.asking import Ask
from tests.servers.matrix import RELOADED
from tests.servers.observing import drains_in
from tests.servers.serving import Server, serving

QUEUED = 5  # a quarter of a second of work: a developer's server drains for one at most

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are looked at in /proc: use Linux"
)


def answers_anew(server: Server, before: int, file: Path) -> bool:
    """Change the file until that is noticed: the first look at it may be to come."""
    try:
        if server.ask(Ask())["pid"] != before:
            return True
    except (OSError, HTTPException, JSONDecodeError):
        return False  # between the two, or cut short by the end of the first
    file.touch()
    return False


def test_a_developers_server_drains_when_a_file_changes_and_goes_on_with_the_new_one(
    tmp_path: Path,
) -> None:
    settings = tmp_path / "changing.py"
    settings.write_text("from tests.servers.ward.settings import *")
    site = {
        "DJANGO_SETTINGS_MODULE": "changing",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "WARD_SLOW_SECONDS": "0.05",
    }

    with serving(RELOADED, tmp_path, **site) as server:
        before = server.emit("slow", QUEUED)["pid"]
        wait_until(lambda: answers_anew(server, before, settings), "the new server")
        handled = [note for note in server.noted("slow") if note.pid == before]
        log = server.log()

    assert len(handled) == QUEUED
    (drain,) = [one for one in drains_in(log) if one.pid == before]
    assert (drain.trigger, drain.left) == ("threading", 0)
