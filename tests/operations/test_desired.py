"""What operators want is kept, told, and found by a process that starts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.django_site.programs import run_program

SETTINGS: Final = """
import logging, sys, time
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin",
        "django.contrib.messages", "django_gomq",
    ],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": NAME,
        "OPTIONS": {"timeout": 60},
    }},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    GOMQ={"BROKERS": {"default": BROKER}},
)
import django
django.setup()
from django.core.management import call_command
from django_gomq import brokers, consumer, emit
from django_gomq.bus.backend import ConsumerState
from django_gomq.live.readings import read
from django_gomq.operations.desired import Operator, brokers_of, desire, progress
seen = []
@consumer("lab.asked", name="lab.analysis")
def analyse(message):
    seen.append(message.data)
def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
"""
MIGRATED: Final = 'call_command("migrate", verbosity=0)\n'
PAUSE: Final = """
desire("default", "lab.analysis", ConsumerState(paused=True), Operator("anna"))
"""


def run(folder: Path, code: str, *, migrated: bool = True, **broker: str) -> list[str]:
    """Run a program on this broker, which has the options in capitals."""
    start = f"NAME = {str(folder / 'db.sqlite3')!r}\nBROKER = {broker!r}\n" + SETTINGS
    done = run_program(start + (MIGRATED if migrated else "") + code)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_process_that_starts_finds_what_was_paused_before(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        # A start waits for the first look, and on a busy machine that takes longer.
        "from django_gomq.operations import reporter\n"
        "reporter.FIRST_LOOK_SECONDS = 60\n" + PAUSE + 'emit("lab.asked", 1)\n'
        "stats = brokers['default'].stats().consumers['lab.analysis']\n"
        "print(stats.paused, seen)\n"
        'desire("default", "lab.analysis", ConsumerState(paused=False), '
        'Operator("anna"))\n'
        "wait_until(lambda: seen == [1])\n"
        "print(seen)\n",
    )

    assert said == ["True []", "[1]"]


def test_who_acted_is_told_to_the_log_and_to_djangos_own(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        "from django.contrib.admin.models import LogEntry\n"
        "from django.contrib.auth.models import User\n"
        "logging.getLogger('gomq.audit').setLevel('INFO')\n"
        "logging.getLogger('gomq.audit').addHandler(logging.StreamHandler(sys.stdout))\n"
        "anna = User.objects.create(username='anna')\n"
        "desire('default', 'lab.analysis', ConsumerState(paused=True, capacity=9), "
        "Operator.of(anna))\n"
        "entry = LogEntry.objects.get()\n"
        "print(entry.user, entry.object_repr, entry.change_message)\n",
    )

    assert said == [
        (
            "anna has paused and resized to 9 consumer lab.analysis of broker default, "
            "in every process"
        ),
        "anna lab.analysis Paused and resized to 9 in every process.",
    ]


def test_what_the_server_keeps_is_audited_though_its_copy_fails(
    tmp_path: Path,
) -> None:
    said = run(
        tmp_path,
        "from django.db import connection\n"
        "logging.getLogger('gomq.audit').setLevel('INFO')\n"
        "logging.getLogger('gomq.audit').addHandler(logging.StreamHandler(sys.stdout))\n"
        "brokers['default'].setup()\n"
        "with connection.cursor() as cursor:\n"
        "    cursor.execute('CREATE TRIGGER full BEFORE INSERT ON gomq_desired '\n"
        "        'BEGIN SELECT RAISE(FAIL, \"full\"); END')\n"
        "try:\n"
        f"    {PAUSE.strip()}\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(brokers['default'].backend.desired_state()['lab.analysis'].paused)\n",
        BACKEND="django_gomq.backends.database.DatabaseBackend",
    )

    assert "anna has paused consumer lab.analysis" in said[0]
    assert said[1:] == ["IntegrityError", "True"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("brokers_of('lab.analisis')", "did you mean lab.analysis"),
        ("brokers_of('lab.analysis', 'other')", "There is no broker 'other'"),
        (
            (
                "desire('default', 'lab.analysis', ConsumerState(capacity=0), "
                "Operator('anna'))"
            ),
            "capacity",
        ),
    ],
)
def test_what_cannot_be_wanted_is_said(tmp_path: Path, call: str, error: str) -> None:
    said = run(
        tmp_path,
        f"try:\n    {call}\nexcept Exception as error:\n"
        "    print(type(error).__name__, error)\n",
    )

    assert said[0].startswith("ConfigurationError ")
    assert error in said[0]


def test_without_the_tables_nobody_is_asked_and_who_wants_is_told(
    tmp_path: Path,
) -> None:
    said = run(
        tmp_path,
        f"try:\n    {PAUSE.strip()}\nexcept Exception as error:\n    print(error)\n"
        'emit("lab.asked", 1)\n'
        "wait_until(lambda: seen == [1])\n"
        "print(read().source, progress('default', 'lab.analysis'))\n",
        migrated=False,
    )

    assert said == [
        (
            "Nothing can keep what is wanted of 'lab.analysis' for all processes: run "
            "manage.py migrate gomq."
        ),
        "process None",
    ]


def test_the_table_tells_what_a_process_counts_and_holds(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        "read()\n"
        'emit("lab.asked", 1)\n'
        "def row():\n"
        "    (found,) = read().consumers\n"
        "    return found\n"
        "wait_until(lambda: read().source == 'table' and row().handled == 1)\n"
        "found = read()\n"
        "print(found.process_count, row().processes, row().capacity)\n"
        "print([event.event for event in found.events], found.processes[0].role)\n",
    )

    assert said == ["1 1 1000", "['lab.asked'] script"]
