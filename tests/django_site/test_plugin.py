from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.django_site.programs import environment

WITHOUT_DJANGO = """
import sys

def test_nothing_is_set_up():
    from django.conf import settings
    assert not settings.configured
"""

WITH_THE_FIXTURE = """
from django_gomq import emit

def test_events_are_captured(gomq_events):
    emit("clinic.visit.made", {"room": 3})
    gomq_events.assert_emitted("clinic.visit.made", times=1, room=3)

def test_each_test_starts_with_none(gomq_events):
    assert list(gomq_events) == []
"""


def run_pytest(
    folder: Path, text: str, *options: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    (folder / "test_of_user.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", *options]
    command += ["--rootdir", str(folder), "-c", "/dev/null", str(folder)]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**environ),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_plugin_needs_no_django_project(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path, WITHOUT_DJANGO, "-p", "no:django", DJANGO_SETTINGS_MODULE=""
    )

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


def test_the_fixture_captures_in_a_project_of_a_user(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, WITH_THE_FIXTURE)

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "2 passed" in done.stdout
