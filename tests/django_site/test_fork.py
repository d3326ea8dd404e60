from __future__ import annotations

import os
import threading
import time

import pytest
from asgiref.sync import sync_to_async

from django_gomq import Message, consumer, emit, get_broker
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, Seen, hold, listen, wait_quiet
from tests.django_site.programs import run_program
from tests.django_site.waiting import SECONDS

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system has no fork: use a Unix"
)


def test_a_child_after_a_fork_starts_clean_and_handles_its_own_events(
    live_site: UseSite,
) -> None:
    held = hold("page.viewed")
    seen = listen("blog.read")
    live_site()
    for number in range(3):
        emit("page.viewed", number)
    assert held.entered.wait(SECONDS)
    reader, writer = os.pipe()

    if not os.fork():
        os._exit(_live_in_child(held, seen, writer))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    held.release.set()
    wait_quiet()

    assert told == "started=False page=[] blog=['child'] depth=0"
    assert held.data == [0, 1, 2]
    assert seen.data == []


def _live_in_child(held: Held, seen: Seen, writer: int) -> int:
    try:
        held.release = threading.Event()  # a thread of the parent may hold its lock
        held.release.set()
        was_started = get_broker().is_started
        emit("blog.read", "child")
        seen.wait_for(1)
        wait_quiet()
        depth = get_broker().stats().queues["page.viewed"].depth
        told = f"started={was_started} page={held.data} blog={seen.data} depth={depth}"
        os.write(writer, told.encode())
    finally:
        os.close(writer)
    return 0


def test_a_forked_child_of_a_child_works_too(live_site: UseSite) -> None:
    listen("page.viewed")
    live_site()
    emit("page.viewed")
    child = os.fork()

    if not child:
        grandchild = os.fork()
        if not grandchild:
            os._exit(0 if _emit_and_drain() else 1)
        _, status = os.waitpid(grandchild, 0)
        os._exit(os.waitstatus_to_exitcode(status) or not _emit_and_drain())
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_async_handlers_run_in_a_child_of_a_process_that_has_run_some(
    live_site: UseSite,
) -> None:
    handled: list[object] = []

    @consumer("page.viewed", name="async")
    async def handle(message: Message[object]) -> None:
        handled.append(await sync_to_async(lambda: message.data)())

    live_site()
    emit("page.viewed", "parent")
    wait_quiet()

    child = os.fork()
    if not child:
        handled.clear()
        emit("page.viewed", "child")
        is_clean = get_broker().close(SECONDS).is_clean
        os._exit(0 if is_clean and handled == ["child"] else 1)

    assert _status_of(child) == 0
    assert handled == ["parent"]


def _emit_and_drain() -> bool:
    accepted = emit("page.viewed").state == "accepted"
    return accepted and get_broker().close(SECONDS).is_clean


@pytest.mark.parametrize("forks", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_forks_while_threads_emit_neither_hang_nor_repeat(
    live_site: UseSite, forks: int
) -> None:
    seen = listen("page.viewed", capacity=100_000)
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 100_000}}})
    done = threading.Event()
    emitted: list[int] = []

    def keep_emitting() -> None:
        while not done.is_set():
            emitted.append(bool(emit("page.viewed", "parent")))
            time.sleep(0.0001)  # lets the others run; nothing is waited for

    threads = [threading.Thread(target=keep_emitting) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen.wait_for(10)

    statuses = [_status_of(_fork_child(seen)) for _ in range(forks)]
    done.set()
    for thread in threads:
        thread.join()
    wait_quiet()

    assert statuses == [0] * forks
    assert seen.data == ["parent"] * sum(emitted)


def _fork_child(seen: Seen) -> int:
    child = os.fork()
    if not child:
        seen.messages = []
        emit("page.viewed", "child")
        is_clean = get_broker().close(SECONDS).is_clean
        os._exit(0 if is_clean and seen.data == ["child"] else 1)
    return child


def _status_of(child: int) -> int:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


FORKING = """
import logging, os, time, warnings
import django
from django.conf import settings
from django_gomq import consumer, emit, get_broker

warnings.simplefilter("ignore")
logging.lastResort = None

def tell(text):
    os.write(1, f"{text} {'parent' if os.getpid() == parent else 'child'}\\n".encode())

@consumer("lab.forks", name="lab.forks")
def fork(message):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        tell("waited in")
    else:
        emit("lab.slow", {})

@consumer("lab.slow", name="lab.slow")
def slow(message):
    time.sleep(0.2)
    tell("handled in")

settings.configure(INSTALLED_APPS=["django_gomq"], GOMQ={"DRAIN_TIMEOUT": 60})
django.setup()
parent = os.getpid()
emit("lab.forks", {})
get_broker().close(60)
tell("ended")
"""


def test_a_child_of_a_handler_drains_its_own_events_and_ends() -> None:
    done = run_program(FORKING)

    assert done.returncode == 0, done.stderr
    told = ["handled in child", "waited in parent", "ended parent"]
    assert done.stdout.splitlines() == told
