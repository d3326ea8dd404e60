"""The migrations: as the models say under any settings, and missed by nobody."""

from __future__ import annotations

from typing import Final

import pytest

from tests.django_site.programs import run_program

SETTINGS: Final = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_gomq"],
    DATABASES={{
        name: {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        for name in ("default", "events")
    }},
    {more}
)
import django
django.setup()
from django.core.management import call_command
"""
DATABASE: Final = "django_gomq.backends.database.DatabaseBackend"
ON_EVENTS: Final = (
    f'GOMQ={{"BROKERS": {{"default": {{"BACKEND": "{DATABASE}", '
    '"OPTIONS": {"using": "events"}}}}, '
    'DATABASE_ROUTERS=["django_gomq.routers.GomqRouter"],'
)
TABLES: Final = """
from django.db import connections
for alias in connections:
    call_command("migrate", "gomq", database=alias, verbosity=0)
    names = connections[alias].introspection.table_names()
    print(alias, sum(name.startswith("gomq_") for name in names))
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "USE_TZ=False,",
        'DEFAULT_AUTO_FIELD="django.db.models.AutoField",',
        'DEFAULT_AUTO_FIELD="django.db.models.SmallAutoField",',
        'DEFAULT_TABLESPACE="elsewhere",',
        ON_EVENTS,
    ],
)
def test_there_is_nothing_to_migrate_under_any_settings(more: str) -> None:
    done = run_program(
        SETTINGS.format(more=more)
        + 'call_command("makemigrations", "--check", "--dry-run")',
        DJANGO_SETTINGS_MODULE="",
    )

    assert (done.returncode, done.stdout) == (0, "No changes detected\n"), done.stderr


def test_the_router_keeps_the_tables_on_the_database_of_the_broker() -> None:
    done = run_program(
        SETTINGS.format(more=ON_EVENTS)
        + TABLES
        + "from django_gomq.models import HistoryEvent\n"
        "print(HistoryEvent.objects.db, HistoryEvent.objects.using(None).db)\n"
        "from django.db import router\n"
        "print(router.db_for_write(HistoryEvent))\n",
        DJANGO_SETTINGS_MODULE="",
    )

    assert done.stdout.split() == [
        *("default", "0", "events", "18"),
        *("events", "events", "events"),
    ], done.stderr


def test_the_router_keeps_the_table_where_the_settings_put_dead_letters() -> None:
    more = (
        'GOMQ={"DEAD_LETTERS": {"USING": "events"}},'
        'DATABASE_ROUTERS=["django_gomq.routers.GomqRouter"],'
    )
    done = run_program(SETTINGS.format(more=more) + TABLES, DJANGO_SETTINGS_MODULE="")

    assert done.stdout.split() == ["default", "0", "events", "18"], done.stderr


def test_without_a_broker_on_a_database_the_router_has_no_word() -> None:
    more = 'DATABASE_ROUTERS=["django_gomq.routers.GomqRouter"],'
    done = run_program(SETTINGS.format(more=more) + TABLES, DJANGO_SETTINGS_MODULE="")

    assert done.stdout.split() == ["default", "18", "events", "18"], done.stderr


def test_the_memory_backend_asks_nothing_of_a_database_that_has_no_table() -> None:
    done = run_program(
        SETTINGS.format(more="")
        + """
from django.core.checks import run_checks
from django.db import connections
from django_gomq import brokers, consumer, emit

handled = []

def refuse(*query, **options):
    raise AssertionError(query)

for alias in connections:
    connections[alias].execute_wrappers.append(refuse)

@consumer("page.viewed", name="seen")
def seen(message):
    handled.append(message.data)

print(run_checks(tags=["gomq"]))
print(bool(emit("page.viewed", {"path": "/"})))
brokers["default"].close(timeout=10)
print(handled)
""",
        DJANGO_SETTINGS_MODULE="",
    )

    assert done.stdout.splitlines() == [
        "[]",
        "True",
        "[{'path': '/'}]",
    ], done.stderr
