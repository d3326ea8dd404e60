from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from django_gomq import brokers, emit
from django_gomq.bus.registry import registry
from django_gomq.site import renew
from django_gomq.testing import GomqTestMixin
from tests.django_site.handlers import listen
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
    gomq_events.assert_emitted("clinic.visit.made", data={"room": 3}, count=1)

def test_each_test_starts_with_none(gomq_events):
    assert list(gomq_events) == []
"""


IN_EVERY_MODE = """
import pytest
from django.db import transaction
from django_gomq import consumer, emit
from django_gomq.site import renew
from django_gomq.testing import assert_emitted

seen = []

@consumer("plugin.tried", name="plugin.seen")
def see(message):
    seen.append(message.data)

@pytest.fixture(autouse=True)
def forget():
    seen.clear()
    renew()

def test_capture_is_the_mode(gomq):
    emit("plugin.tried", 1)
    gomq.assert_emitted("plugin.tried", data=None, count=1)
    assert_emitted("plugin.tried")
    gomq.assert_not_emitted("plugin.left")
    gomq.assert_listening("plugin.tried", "plugin.seen")
    assert len(gomq.events) == 1
    assert gomq.mode == "capture"
    assert not seen
    gomq.drain()
    with pytest.raises(AssertionError, match="'capture' does not say"):
        gomq.handled
    with gomq.capture():
        gomq.assert_nothing_emitted()
    gomq.call(see, "plugin.tried", 2)
    assert seen == [2]

@pytest.mark.gomq("inline")
@pytest.mark.django_db
def test_the_marker_alone_runs_handlers_inline():
    with transaction.atomic():
        emit("plugin.tried", 3)
        assert not seen
    assert seen == [3]

@pytest.mark.gomq("inline")
def test_inline_says_what_is_handled(gomq):
    emit("plugin.tried", 4)
    assert [one.attempt for one in gomq.handled] == [1]
    assert len(gomq.events) == 1

@pytest.mark.gomq("live")
@pytest.mark.django_db(transaction=True)
def test_live_runs_the_bus(gomq):
    emit("plugin.tried", 5)
    gomq.drain(60)
    assert seen == [5]
    with pytest.raises(AssertionError, match="published, not captured"):
        gomq.events
"""

WRONG_MODES = """
import pytest

@pytest.mark.gomq("live")
def test_live_where_nothing_commits(db):
    pass

@pytest.mark.gomq("live")
@pytest.mark.django_db
def test_live_where_nothing_commits_by_mark():
    pass

@pytest.mark.gomq("eager")
def test_no_such_mode():
    pass

@pytest.mark.gomq
def test_no_mode():
    pass
"""

INLINE_BY_DEFAULT = """
import pytest
from django_gomq import consumer, emit
from django_gomq.site import renew

seen = []

@consumer("plugin.tried", name="plugin.seen")
def see(message):
    seen.append(message.data)

def test_inline_without_any_mark():
    renew()
    seen.clear()
    emit("plugin.tried", 1)
    assert seen == [1]

@pytest.mark.gomq("capture")
def test_a_mark_says_otherwise(gomq):
    seen.clear()
    emit("plugin.tried", 2)
    assert not seen
    gomq.assert_emitted("plugin.tried")
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


def test_the_fixture_has_the_whole_kit_in_each_mode(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, IN_EVERY_MODE, "-p", "no:randomly")

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_modes_work_in_several_processes(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, IN_EVERY_MODE, "-n", "2")

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_wrong_mode_says_what_to_do(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, WRONG_MODES)

    assert "4 errors" in done.stdout
    assert "Use TransactionTestCase, or" in done.stdout
    assert "'eager' is no mode of tests; there are capture, inline" in done.stdout
    assert "Write @pytest.mark.gomq(mode)" in done.stdout


def test_the_configuration_names_the_mode_of_all_tests(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, INLINE_BY_DEFAULT, "-o", "gomq_mode=inline")

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


class InUnittest(GomqTestMixin, TestCase):
    gomq_mode = "inline"

    def setUp(self) -> None:
        self.addCleanup(renew)
        self.enterContext(registry.isolated())
        self.seen = listen("page.viewed")
        renew()
        super().setUp()

    def test_the_mixin_gives_the_kit(self) -> None:
        with transaction.atomic():
            emit("page.viewed", 1)

        assert self.seen.data == [1]
        self.gomq.assert_emitted("page.viewed", count=1)
        assert len(self.gomq.handled) == 1


class InUnittestByDefault(GomqTestMixin, TestCase):
    def test_the_mixin_captures(self) -> None:
        emit("clinic.visit.made", 1)

        self.gomq.assert_emitted("clinic.visit.made", count=1)


class InUnittestLive(GomqTestMixin, TransactionTestCase):
    gomq_mode = "live"

    def test_the_mixin_runs_the_bus(self) -> None:
        with transaction.atomic():
            assert emit("clinic.visit.made", 1)
        self.gomq.drain(60)

        assert brokers["default"].stats().consumers["clinic.audit"].succeeded == 1
