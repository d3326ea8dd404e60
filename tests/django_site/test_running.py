from __future__ import annotations

from typing import Any

import pytest

from django_gomq.process_role import (
    command_of,
    consumers_run,
    runs_here,
    serves_requests,
)
from django_gomq.testing import live


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([], None),
        (["/venv/bin/gunicorn", "site.wsgi"], None),
        (["/venv/bin/celery", "worker"], None),
        (["manage.py", "migrate"], "migrate"),
        (["./manage.py", "shell"], "shell"),
        (["/venv/bin/django-admin", "check"], "check"),
        (["bin/manage", "migrate"], "migrate"),
        (["manage.pyc", "migrate"], "migrate"),
        (["management", "migrate"], None),
        (["/lib/django/__main__.py", "migrate"], "migrate"),
        (["/lib/pytest/__main__.py", "migrate"], None),
        (["manage.py"], "help"),
    ],
)
def test_the_command_is_read_from_the_command_line(
    argv: list[str], command: str | None
) -> None:
    assert command_of(argv) == command


@pytest.mark.parametrize(
    ("argv", "environ", "runs"),
    [
        (["gunicorn"], {}, True),
        (["manage.py", "shell"], {}, True),
        (["manage.py", "import_records"], {}, True),
        (["manage.py", "migrate"], {}, False),
        (["manage.py", "makemigrations"], {}, False),
        (["manage.py", "collectstatic"], {}, False),
        (["manage.py", "check"], {}, False),
        (["manage.py", "test"], {}, False),
        (["manage.py", "runserver"], {}, False),
        (["manage.py", "runserver"], {"RUN_MAIN": "true"}, True),
        (["manage.py", "runserver", "--noreload"], {}, True),
        (["gunicorn"], {"GOMQ_RUN": "never"}, False),
        (["gunicorn"], {"GOMQ_RUN": "worker"}, False),
        (["manage.py", "migrate"], {"GOMQ_RUN": "here"}, True),
        (["manage.py", "migrate"], {"GOMQ_RUN": "auto"}, False),
        (["manage.py", "migrate"], {"GOMQ_RUN": ""}, False),
    ],
)
def test_auto_decides_by_the_command_line_and_the_environment_wins(
    argv: list[str], environ: dict[str, str], runs: bool
) -> None:
    assert consumers_run("auto", argv, environ) is runs


@pytest.mark.parametrize(
    ("run", "environ", "runs"),
    [
        ("here", {}, True),
        ("never", {}, False),
        ("worker", {}, False),
        ("here", {"GOMQ_RUN": "never"}, False),
        ("never", {"GOMQ_RUN": "here"}, True),
        ("here", {"GOMQ_RUN": "auto"}, False),
    ],
)
def test_the_setting_decides_for_every_command(
    run: Any, environ: dict[str, str], runs: bool
) -> None:
    assert consumers_run(run, ["manage.py", "migrate"], environ) is runs


@pytest.mark.parametrize(
    ("argv", "serves"),
    [
        (["gunicorn"], True),
        (["manage.py", "runserver"], True),
        (["manage.py", "import_records"], False),
        (["manage.py", "shell"], False),
    ],
)
def test_a_command_is_no_request(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], serves: bool
) -> None:
    monkeypatch.setattr("sys.argv", argv)

    assert serves_requests() is serves


def test_a_live_test_stands_for_a_server_under_djangos_own_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["manage.py", "test"])

    with live():
        inside = runs_here("auto"), serves_requests(), runs_here("never")

    assert inside == (True, True, False)
    assert (runs_here("auto"), serves_requests()) == (False, False)
