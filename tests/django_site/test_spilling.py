"""Consumers that spill, in a site: its checks, its start, its end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.django_site.programs import run_program

SITE: Final = """
import sys, threading
from django.conf import settings
settings.configure(
    SECRET_KEY="only for tests",
    ROOT_URLCONF="",
    INSTALLED_APPS=["django_gomq"],
    DATABASES={databases!r},
    GOMQ={{"DRAIN_TIMEOUT": 0.05, {more}}},
)
from django_gomq import consumer
gate, handled = threading.Event(), []
@consumer("a.b", name="c", capacity=5, overflow="spill", ordered_by_key=True)
def handle(message):
    gate.wait(60)
    handled.append(message.data)
import django
django.setup()
from django.core.management import call_command
from django_gomq import brokers, emit
def wait_until(condition):
    import time
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
"""
MIGRATE: Final = 'call_command("migrate", "gomq", verbosity=0)\n'


def on(path: Path | str) -> str:
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}
    return SITE.format(databases={"default": entry}, more="")


def run(code: str) -> str:
    done = run_program(code, DJANGO_SETTINGS_MODULE="")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_next_process_goes_on_from_its_first_request(tmp_path: Path) -> None:
    path = tmp_path / "site.sqlite3"
    first = run(
        on(path)
        + MIGRATE
        + "for number in range(300): emit('a.b', number, key='k', timeout=60)\n"
        "wait_until(lambda: brokers['default'].stats().consumers['c'].spilled > 280)\n"
        "brokers['default'].pause('c')\n"
        "threading.Timer(0.2, gate.set).start()\n"
        "from django_gomq.site import close\n"
        "close()\n"
        "stats = brokers['default'].stats().consumers['c']\n"
        "print('unaccounted', stats.unaccounted, 'dropped', len(stats.dropped))\n"
        "print('spilled:', stats.spilled)\n"
    )
    left = int(first.split("spilled: ")[-1].split()[0])
    assert "unaccounted 0 dropped 0" in first
    assert left >= 290

    second = run(
        on(path) + "gate.set()\n"
        "assert not brokers['default'].is_started\n"
        "from django.core.signals import request_started\n"
        "request_started.send(None)\n"
        f"wait_until(lambda: len(handled) == {left})\n"
        f"print(handled == list(range(300 - {left}, 300)))\n"
    )
    assert second.endswith("True\n")


def test_without_the_tables_a_check_and_the_start_say_what_to_run() -> None:
    said = run(
        on(":memory:")
        + 'call_command("check", databases=["default"])\n'
        + "try: emit('a.b', 1, timeout=1)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        + MIGRATE
        + 'call_command("check", databases=["default"])\n'
    )

    assert said.count("gomq.W012") == 2  # of the check, and of migrate's own
    assert "ConfigurationError Broker 'default' has consumers with overflow" in said
    assert "has no table gomq_spilled: run manage.py migrate --database default" in said


def test_without_a_database_for_it_a_site_that_spills_does_not_start() -> None:
    done = run_program(SITE.format(databases={}, more=""), DJANGO_SETTINGS_MODULE="")

    assert done.returncode == 1
    assert "'c' has overflow='spill', and there is no database for" in done.stderr


@pytest.mark.parametrize(
    "entry", [{"overflow": "drop_newest"}, {"enabled": False}], ids=str
)
def test_without_a_database_one_that_spills_nothing_starts(
    entry: dict[str, object],
) -> None:
    said = run(
        SITE.format(databases={}, more=f"'CONSUMERS': {{'c': {entry}}},")
        + "from django.core.checks import run_checks\n"
        "print([found.id for found in run_checks()])\n"
        "print(emit('a.b', 1).reason)\n"
    )

    assert "gomq.E010" not in said


def test_without_a_database_for_it_one_that_spills_is_refused_late_too() -> None:
    said = run(
        SITE.format(databases={}, more="'CONSUMERS': {'c': {'enabled': False}},")
        + "try:\n"
        "    @consumer('a.c', name='late', overflow='spill')\n"
        "    def late(message): pass\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(emit('a.b', 1).reason)\n"
    )

    assert "'late' has overflow='spill', and there is no database for" in said
    assert "\nno_consumer\n" in said


def test_a_command_that_runs_no_consumers_needs_no_database_for_it() -> None:
    command = ["manage.py", "diffsettings"]
    done = run_program(
        f"import sys; sys.argv = {command}\n" + SITE.format(databases={}, more=""),
        DJANGO_SETTINGS_MODULE="",
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["check"], ["gomq", "doctor"]], ids=" ".join)
def test_commands_that_report_mistakes_say_that_there_is_no_database_for_it(
    command: list[str],
) -> None:
    code = SITE.format(databases={}, more="")
    start = code.replace(
        "django.setup()\n",
        "from django.core.management import execute_from_command_line\n"
        f"execute_from_command_line({['manage.py', *command]})\n",
    )
    done = run_program(
        f"import sys; sys.argv = {['manage.py', *command]}\n" + start,
        DJANGO_SETTINGS_MODULE="",
    )

    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert "'c' has overflow='spill', and there is no database for" in said
    assert said.count("gomq.E010") == 1
    assert "Traceback" not in said


def test_doctor_needs_no_table_of_a_consumer_that_spills() -> None:
    said = run(on(":memory:") + 'call_command("gomq", "doctor")\n')

    assert "No broker has a server" in said


def test_a_consumer_whose_events_a_server_keeps_needs_no_table_for_them() -> None:
    entry = {
        "BACKEND": "django_gomq.backends.redis.RedisBackend",
        "OPTIONS": {"url": "redis://127.0.0.1:1/0"},
    }
    said = run(
        # The order of keys is memory's and the database's.
        SITE.replace(", ordered_by_key=True", "").format(
            databases={}, more=f'"BROKERS": {{"default": {entry}}},'
        )
        + "from django.core.checks import run_checks\n"
        "print([one.id for one in run_checks()])\n"
    )

    assert "gomq.E010" not in said
