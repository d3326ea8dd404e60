"""The first emit of a process: it makes the bus, at whatever moment it comes."""

from __future__ import annotations

import json

import pytest

from tests.django_site.programs import run_program

SITE = """
import json, logging, os, sys, threading
import django
from django.conf import settings
from django_gomq import consumer, emit, get_broker

logging.lastResort = None

@consumer("lab.done", name="lab.sync")
def handle(message): ...

@consumer("lab.done", name="lab.async")
async def ahandle(message): ...

settings.configure(
    INSTALLED_APPS=["django_gomq"],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    },
    GOMQ={"HOOKS": ["tests.django_site.own_hooks.Noting"]},
)
django.setup()
"""
IMPORTS = """
imported = []
def note(event, given):
    # The reporter connects to the database, on a thread that nobody waits for long.
    if event == "import" and threading.current_thread().name != "gomq-reporter":
        imported.append(given[0])
sys.addaudithook(note)
emit("lab.done", {})
get_broker().close(30)
print(json.dumps(imported))
"""
DESCRIPTORS = """
import resource
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
reasons = [emit("lab.done", {}).reason for _ in range(2)]
for one in taken:
    os.close(one)
reasons.append(emit("lab.done", {}).reason)
get_broker().close(30)
done = [one.succeeded for one in get_broker().stats().consumers.values()]
print(json.dumps([reasons, done]))
"""


def test_the_first_emit_imports_nothing() -> None:
    done = run_program(SITE + IMPORTS)

    assert json.loads(done.stdout) == [], done.stderr


def test_without_a_free_descriptor_it_is_refused_and_the_next_one_tries_again() -> None:
    pytest.importorskip("resource", reason="this system has no limits: use a Unix")

    done = run_program(SITE + DESCRIPTORS)

    reasons, handled = json.loads(done.stdout)
    assert reasons == ["not_running", "not_running", None], done.stderr
    assert handled == [1, 1]
