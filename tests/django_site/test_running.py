from __future__ import annotations

from typing import Any, Final

import pytest
from django.test import override_settings

from django_gomq.process.role import (
    command_of,
    consumers_run,
    may_wait,
    runs_here,
    serves_requests,
)
from django_gomq.testing import live
from tests.django_site.programs import run_program


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
        (["manage.py", "migrate_schemas", "--shared"], {}, False),
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
    ("argv", "environ", "runs"),
    [
        (["gunicorn"], {}, False),
        (["celery", "worker"], {}, False),
        (["manage.py", "shell"], {}, False),
        (["manage.py", "import_records"], {}, False),
        (["manage.py", "migrate"], {}, False),
        (["manage.py", "gomq", "setup"], {}, False),
        (["manage.py", "gomq", "worker"], {}, True),
        (["manage.py", "runserver"], {}, False),
        (["manage.py", "runserver"], {"RUN_MAIN": "true"}, True),
        (["manage.py", "runserver", "--noreload"], {}, True),
        (["manage.py", "runserver", "--noreload"], {"GOMQ_RUN": "worker"}, False),
        (["manage.py", "runserver", "--noreload"], {"GOMQ_RUN": "never"}, False),
        (["gunicorn"], {"GOMQ_RUN": "here"}, True),
    ],
)
def test_consumers_of_servers_run_in_a_worker_and_under_runserver_only(
    argv: list[str], environ: dict[str, str], runs: bool
) -> None:
    assert consumers_run("auto", argv, environ, has_server=True) is runs


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
        (["import_records.py"], False),
        (["manage.py", "runserver"], True),
        (["manage.py", "import_records"], False),
        (["manage.py", "shell"], False),
    ],
)
def test_commands_and_scripts_serve_no_requests(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], serves: bool
) -> None:
    monkeypatch.setattr("sys.argv", argv)

    assert (serves_requests(), may_wait()) == (serves, not serves)


def test_a_live_test_stands_for_a_server_under_djangos_own_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["manage.py", "test"])

    with live():
        inside = runs_here("auto"), serves_requests(), runs_here("never")

    assert inside == (True, True, False)
    assert (runs_here("auto"), serves_requests()) == (False, False)


PROGRAM: Final = """
import sys, threading
from django.core import management
from django_gomq import emit
from django_gomq.process import role

def tell(where):
    runs = role.runs_here("auto", ["prepare"])
    print(where, runs, role.may_wait())

class Command(management.BaseCommand):
    requires_system_checks = []
    def handle(self, **options):
        tell("main")
        other = threading.Thread(target=tell, args=("thread",))
        other.start(); other.join()

management.get_commands().update(import_records=Command(), migrate=Command())
management.get_commands().update(prepare=Command())
"""


@pytest.mark.parametrize("is_set_up_first", [False, True])
@pytest.mark.parametrize(
    ("command", "runs"),
    [("import_records", True), ("migrate", False), ("prepare", False)],
)
@pytest.mark.parametrize("program", ["/venv/bin/mysite", "/app/mysite/__main__.py"])
def test_django_is_asked_which_command_runs_whatever_the_program_is_called(
    program: str, command: str, runs: bool, is_set_up_first: bool
) -> None:
    set_up = "import django; django.setup()" if is_set_up_first else ""

    done = run_program(
        f"{PROGRAM}\nsys.argv = [{program!r}, 'nothing']\n{set_up}\n"
        f"management.execute_from_command_line(['mysite', {command!r}])"
    )

    assert done.stdout == f"main {runs} True\nthread {runs} True\n", done.stderr


def test_a_command_called_by_a_program_makes_it_no_command() -> None:
    done = run_program(
        PROGRAM + "import django; django.setup(); management.call_command('migrate')"
    )

    assert done.stdout == "main True True\nthread True True\n", done.stderr


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_who_makes_an_application_serves_requests(kind: str) -> None:
    done = run_program(
        f"{PROGRAM}\nimport django.core.{kind} as it\n"
        f"it.get_{kind}_application(); tell('server')\n"
        "management.call_command('migrate')\n"
        "management.execute_from_command_line(['mysite', 'migrate'])"
    )

    expected = ["server", *["main", "thread"] * 2]
    assert done.stdout == "".join(f"{where} True False\n" for where in expected)


def test_the_first_request_tells_that_a_process_serves_and_a_test_client_does_not() -> (
    None
):
    done = run_program(
        PROGRAM
        + """
import django; django.setup()
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, RequestFactory
settings.ALLOWED_HOSTS = ["*"]
Client().get("/"); tell("client")
WSGIHandler()(RequestFactory().get("/").environ, lambda *_: None); tell("server")
"""
    )

    assert done.stdout == "client True True\nserver True False\n", done.stderr


def test_a_site_may_name_more_commands_that_handle_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from django_gomq.site import brokers

    monkeypatch.setattr("sys.argv", ["manage.py", "prepare"])

    with override_settings(GOMQ={"IDLE_COMMANDS": ["prepare"]}):
        assert brokers.site is not None
        is_idle = not brokers.site.may_run
    with override_settings(GOMQ={"IDLE_COMMANDS": ["other"]}):
        assert brokers.site is not None
        is_other = brokers.site.may_run

    assert (is_idle, is_other) == (True, True)
