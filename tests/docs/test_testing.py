"""The tests of docs/testing.md, in the project that the page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from django_gomq import testing
from tests.django_site.waiting import SECONDS
from tests.docs.pasting import ROOT, environment, paste, start_project

PAGE: Final = ROOT / "docs" / "testing.md"
FAILURE: Final = re.compile(r"```text\n(.*?)```", re.DOTALL)

FAILS = """
from django.test import TestCase
from django_gomq.testing import assert_emitted, capture
from mysite.consumers import OrderPaid

class Failing(TestCase):
    def test_it(self):
        with capture():
            self.client.post("/pay/7")
            assert_emitted(OrderPaid, data={"order_id": 8})
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("testing")
    start_project(folder)
    paste(PAGE, folder)
    return folder


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS * 4,
        check=False,
    )


def test_the_tests_of_the_page_pass_under_django(project: Path) -> None:
    done = run(project, "-W", "error", "manage.py", "test", "mysite")

    assert done.returncode == 0, done.stderr
    assert "Ran 11 tests" in done.stderr
    assert "OK" in done.stderr


def test_the_tests_of_the_page_pass_under_pytest(project: Path) -> None:
    names = [file.name for file in sorted((project / "mysite").glob("test*.py"))]
    files = [f"mysite/{name}" for name in names]
    # Django closes no connection to SQLite in memory, and Python 3.13 tells of those
    # that ended threads leave.
    collected = "ignore::pytest.PytestUnraisableExceptionWarning"
    done = run(project, "-m", "pytest", "-q", "-W", "error", "-W", collected, *files)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout


def test_the_failure_of_the_page_is_what_a_reader_gets(project: Path) -> None:
    (project / "mysite" / "failing.py").write_text(FAILS)

    done = run(project, "manage.py", "test", "mysite.failing")

    (shown,) = FAILURE.findall(PAGE.read_text())
    assert shown in done.stderr


def test_the_page_names_all_that_there_is() -> None:
    text = PAGE.read_text()
    values = {"CapturedEvents", "Dropped", "Gomq", "HandledMessage", "InlineEvents"}

    missing = [
        name
        for name in {*testing.__all__} - values - {"LiveBus", "Outcome"}
        if name not in text
    ]
    assert missing == []
