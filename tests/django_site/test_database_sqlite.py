"""SQLite, as a new project has it, under handlers that write beside one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.django_site.programs import run_program

MESSAGES = 50

PROGRAM = """
import json, logging
from django.conf import settings

OPTIONS = {options!r}
settings.configure(
    INSTALLED_APPS=["django_gomq", "tests.django_site.clinic"],
    DATABASES={{
        "default": {{
            "ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}, "OPTIONS": OPTIONS
        }}
    }},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    GOMQ={{"AUTODISCOVER": []}},
)
import django
from django_gomq import consumer, emit, get_broker

settings_seen = set()

def count():
    from django.db import connection
    from tests.django_site.clinic.models import Record
    record = Record.objects.get(pk=1)
    record.patient_id += 1
    record.save()
    with connection.cursor() as cursor:
        (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    settings_seen.add(f"{{connection.transaction_mode}} {{timeout}}")

@consumer("page.viewed", name="atomic", concurrency=4, atomic=True)
def atomic(message):
    count()

@consumer("page.viewed", name="block", concurrency=4)
def block(message):
    from django.db import transaction
    with transaction.atomic():
        count()

@consumer("page.viewed", name="awaits", concurrency=4)
async def awaits(message):
    from asgiref.sync import sync_to_async
    await sync_to_async(block)(message)

django.setup()
logging.disable(logging.CRITICAL)
from django.db import connection, transaction
from tests.django_site.clinic.models import Record, Tag

with connection.schema_editor() as editor:
    editor.create_model(Tag)
    editor.create_model(Record)
Record.objects.create(pk=1, patient_id=0)
settings_seen.clear()
for _ in range({messages}):
    emit("page.viewed")
requests = 0
if "transaction_mode" in OPTIONS:  # as a view would, beside the handlers
    for requests in range(1, 51):
        with transaction.atomic():
            count()
get_broker().close(60)
stats = get_broker().stats().consumers
print(json.dumps({{
    "succeeded": {{name: one.succeeded for name, one in stats.items()}},
    "counted": Record.objects.get(pk=1).patient_id - requests,
    "errors": {{name: list(one.exceptions) for name, one in stats.items()}},
    "settings": sorted(settings_seen),
}}))
"""


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, "IMMEDIATE 30000"),
        ({"transaction_mode": "IMMEDIATE", "timeout": 20}, "IMMEDIATE 20000"),
    ],
    ids=["startproject", "documented"],
)
def test_handlers_write_beside_one_another_without_a_locked_database(
    tmp_path: Path, options: dict[str, Any], seen: str
) -> None:
    code = PROGRAM.format(
        options=options, name=str(tmp_path / "db.sqlite3"), messages=MESSAGES
    )

    done = run_program(code, GOMQ_RUN="here")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    consumers = ("atomic", "awaits", "block")
    assert found["errors"] == {name: [] for name in consumers}
    assert found["succeeded"] == dict.fromkeys(consumers, MESSAGES)
    assert found["counted"] == MESSAGES * len(consumers)
    assert found["settings"] == [seen]
