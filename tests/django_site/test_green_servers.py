"""A process whose threads gevent or eventlet has replaced by greenlets."""

from __future__ import annotations

import json

import pytest

from tests.django_site.programs import run_program

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore')\n"
    "import eventlet; eventlet.monkey_patch()",
}

PROGRAM = """
import asyncio, json, logging, threading, time
import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django_gomq import Retry, aemit, consumer, emit, get_broker

logging.lastResort = None
answers, handled = [], []

def query():
    from django.db import connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT 7")
        return cursor.fetchone()[0]

@consumer("lab.sync", name="lab.sync")
def handle(message):
    handled.append("sync")

@consumer("lab.async", name="lab.async", concurrency=20)
async def ahandle(message):
    await asyncio.sleep(0.001)
    await aemit("lab.sync", {})
    handled.append(await sync_to_async(query)())

@consumer("lab.retried", name="lab.retried", retry=Retry(attempts=2, min_delay=0.01))
async def retried(message):
    if message.attempt == 1:
        raise ValueError
    handled.append(await asyncio.to_thread(query))

@consumer("lab.blocks", name="lab.blocks")
async def block(message):
    blocked.set()
    time.sleep(0.3)  # it lets other greenlets run, in the midst of the loop's step
    handled.append("blocked")

def request():
    for _ in range(10):
        try:
            answers.append(bool(emit("lab.async", {})))
            answers.append(query() == 7)
        except Exception as error:
            answers.append(repr(error))
        time.sleep(0.001)

settings.configure(
    INSTALLED_APPS=["django_gomq"],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    },
    GOMQ={"DRAIN_TIMEOUT": 60},
)
django.setup()
blocked = threading.Event()
emit("lab.retried", {})
requests = [threading.Thread(target=request) for _ in range(5)]
for thread in requests:
    thread.start()
for thread in requests:
    thread.join()
emit("lab.blocks", {})
blocked.wait(30)
request()
while not get_broker().stats().is_quiet:
    time.sleep(0.01)
remainder = get_broker().close(30)
print(json.dumps([answers, sorted(map(str, handled)), remainder.is_clean]))
"""


@pytest.mark.parametrize("library", PATCHES)
def test_async_consumers_and_requests_share_a_thread_in_peace(library: str) -> None:
    done = run_program(f"{PATCHES[library]}\n{PROGRAM}")

    assert done.returncode == 0, done.stderr
    answers, handled, is_clean = json.loads(done.stdout.splitlines()[-1])
    assert answers == [True] * 120
    assert handled == ["7"] * 61 + ["blocked"] + ["sync"] * 60
    assert is_clean


NEIGHBOUR = """
import asyncio, logging, threading, time
import django
from django.conf import settings
from django_gomq import consumer, emit

logging.lastResort = None

@consumer("lab.sync", name="lab.sync")
def handle(message): ...

settings.configure(INSTALLED_APPS=["django_gomq"])
django.setup()
began, asked = threading.Event(), threading.Event()

async def view():
    began.set()
    while not asked.is_set():
        await asyncio.sleep(0.01)

neighbour = threading.Thread(target=lambda: asyncio.run(view()))
neighbour.start()
began.wait(30)
time.sleep(0.01)
print(neighbour.is_alive() and bool(emit("lab.sync", {})))
asked.set()
neighbour.join()
"""


@pytest.mark.parametrize("library", PATCHES)
def test_a_loop_of_another_greenlet_is_no_reason_to_refuse_an_emit(
    library: str,
) -> None:
    done = run_program(f"{PATCHES[library]}\n{NEIGHBOUR}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True", done.stderr


LATE = """
from django.conf import settings
import django
from django_gomq import consumer, emit

@consumer("lab.sync", name="lab.sync")
def handle(message): ...

settings.configure(INSTALLED_APPS=["django_gomq"])
django.setup()
{patch}
print([emit("lab.sync", {{}}).reason for _ in range(2)])
"""


@pytest.mark.parametrize("library", PATCHES)
def test_threads_that_are_replaced_too_late_refuse_and_do_not_hang(
    library: str,
) -> None:
    done = run_program(LATE.format(patch=PATCHES[library]))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['not_running', 'not_running']"
    assert "call monkey.patch_all() first" in done.stderr
