"""The command itself: what it says of its subcommands, and what it starts."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from django_gomq.management.commands.gomq import SUBCOMMANDS
from django_gomq.process.role import consumers_run
from tests.django_site.programs import run_program
from tests.management.commanding import gomq, run_gomq

LOADED_BY_HELP = """
import sys
from django.core.management import execute_from_command_line
sys.argv = ["manage.py", "gomq", "--help"]
try:
    execute_from_command_line(sys.argv)
except SystemExit:
    print("prometheus_client" in sys.modules)
"""
WITHOUT_METRICS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = ""
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_gomq"], GOMQ={"METRICS": {"ENABLED": False}}
)
"""


@pytest.mark.parametrize("arguments", [(), ("lits",), ("--traceback",)])
def test_without_a_subcommand_that_exists_all_are_named_with_a_line_of_help(
    arguments: tuple[str, ...],
) -> None:
    done = gomq(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    usage = done.stderr.partition("error:")[0].splitlines()
    assert max(map(len, usage)) <= 80
    lines = [line.split(maxsplit=1) for line in done.stderr.splitlines()]
    for name, subcommand in SUBCOMMANDS.items():
        assert [name, subcommand.HELP] in lines


def test_a_subcommand_that_does_not_exist_is_named() -> None:
    assert "'lits'" in gomq("lits").stderr


def test_each_subcommand_helps() -> None:
    for name, subcommand in SUBCOMMANDS.items():
        done = gomq(name, "--help")

        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert " ".join(subcommand.HELP.split()) in " ".join(done.stdout.split())


def test_options_of_every_command_may_stand_behind_the_subcommand() -> None:
    done = run_gomq(
        "list", "--settings", "tests.settings", "-v", "0", DJANGO_SETTINGS_MODULE=""
    )

    assert done.returncode == 0, done.stderr
    assert "clinic.statistics" in done.stdout


def test_called_by_code_it_writes_where_it_is_told() -> None:
    out = io.StringIO()

    call_command("gomq", "list", stdout=out)

    assert "clinic.statistics" in out.getvalue()


def test_called_by_code_a_wrong_subcommand_raises() -> None:
    with pytest.raises(CommandError, match="lits"):
        call_command("gomq", "lits")


def test_help_needs_no_client_of_prometheus() -> None:
    done = run_program(WITHOUT_METRICS + LOADED_BY_HELP)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["list"], False),
        (["--settings", "x", "stats", "--watch"], False),
        ([], False),
        (["worker"], True),
        (["--settings", "x", "worker", "--processes", "2"], True),
        (["setup", "--broker", "worker"], False),
        (["--pythonpath", "worker", "stats"], False),
    ],
)
def test_looking_at_the_bus_starts_no_consumer(
    arguments: list[str], runs: bool
) -> None:
    assert consumers_run("auto", ["manage.py", "gomq", *arguments], {}) is runs
