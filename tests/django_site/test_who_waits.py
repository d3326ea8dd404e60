"""Whoever may wait does not lose, as programs with Django see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.db import transaction

from django_gomq import PublishTimeoutError, consumer, emit, emit_many, get_broker
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, wait_quiet
from tests.django_site.programs import run_program
from tests.django_site.waiting import SECONDS, wait_until

COUNT = 5000

SITE = """
import sys, time, threading
from django.core import management
from django.conf import settings
from django_gomq import aemit, consumer, emit, emit_many, get_broker
handled = {}

def register(name, *types, **options):
    handled[name] = 0
    def handle(message):
        handled[name] += len(message) if options.get("batch") else 1
    consumer(*types, name=name, **options)(handle)

register("newest", "a.b", "a.c")
register("oldest", "a.*", overflow="drop_oldest", capacity=50)
register("batch", "a.b", "a.c", batch=20, linger=0.01, capacity=50)
register("ordered", "a.b", "a.c", ordered_by_key=True)

@consumer("a.b", "a.c", name="slow")
def handle(message):
    handled["slow"] = handled.get("slow", 0) + 1
    time.sleep(0.0002)

@consumer("a.b", "a.c", name="async")
async def handle_async(message):
    handled["async"] = handled.get("async", 0) + 1

def finish():
    get_broker().close()
    print(sorted(set(handled.values())), len(handled))
"""
WAYS = {
    "in one transaction": """
from django.db import transaction
with transaction.atomic():
    for number in range(5000):
        emit("a.b" if number % 2 else "a.c", number, key=str(number % 5))
""",
    "in a loop": """
for number in range(5000):
    assert emit("a.b" if number % 2 else "a.c", number)
""",
    "at once": "assert all(emit_many([('a.b', 1), ('a.c', 2)] * 2500))",
    "on a loop": """
import asyncio
async def emit_all():
    for number in range(5000):
        assert await aemit("a.b", number)
asyncio.run(emit_all())
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_script_that_emits_five_thousand_events_has_five_thousand_handled(
    way: str,
) -> None:
    done = run_program(f"{SITE}import django; django.setup()\n{WAYS[way]}\nfinish()")

    assert done.stdout == "[5000] 6\n", done.stderr
    assert "will not see" not in done.stderr


@pytest.mark.parametrize("way", ["in one transaction", "in a loop"])
def test_a_command_that_emits_five_thousand_events_has_five_thousand_handled(
    way: str,
) -> None:
    done = run_program(
        f"{SITE}code = {'from __main__ import *' + WAYS[way] + 'finish()'!r}\n"
        "management.execute_from_command_line(['mysite', 'shell', '-v0', '-c', code])"
    )

    assert done.stdout == "[5000] 6\n", done.stderr
    assert done.returncode == 0


@pytest.fixture
def held(live_site: UseSite) -> Iterator[Held]:
    """A consumer with room for the message that it is in, at a queue of three."""
    held = Held()
    consumer("page.viewed", name="held", capacity=1)(held)
    live_site(
        BROKERS={"default": {"OPTIONS": {"capacity": 3}}},
        DRAIN_TIMEOUT=SECONDS,
        FLUSH_TIMEOUT=0.01,
    )
    emit("page.viewed", 0)
    assert held.entered.wait(SECONDS)
    wait_until(lambda: not get_broker().stats().queues["page.viewed"].depth)
    yield held
    held.release.set()


def dropped() -> int:
    return sum(get_broker().stats().consumers["held"].dropped.values())


def test_a_request_that_gives_a_timeout_is_refused_and_loses_nothing(
    held: Held,
) -> None:
    receipts = [emit("page.viewed", number, timeout=0.01) for number in range(1, 9)]

    held.release.set()
    wait_quiet()
    assert [one.state for one in receipts] == ["accepted"] * 3 + ["refused"] * 5
    assert {one.reason for one in receipts[3:]} == {"timeout"}
    assert (held.data, dropped()) == ([0, 1, 2, 3], 0)


def test_a_request_that_gives_no_timeout_leaves_it_to_the_overflow(held: Held) -> None:
    receipts = []
    for number in range(9):
        receipts.append(emit("page.viewed", number))
        wait_until(lambda: not get_broker().stats().queues["page.viewed"].depth)

    assert all(receipts)
    assert dropped() == 9


@pytest.mark.django_db(transaction=True)
def test_the_commit_of_a_request_leaves_it_to_the_overflow(held: Held) -> None:
    for number in range(9):
        with transaction.atomic():
            emit("page.viewed", number)
        wait_until(lambda: not get_broker().stats().queues["page.viewed"].depth)

    assert dropped() == 9


@pytest.mark.django_db(transaction=True)
def test_a_commit_waits_as_long_as_its_emits_were_told_to(held: Held) -> None:
    threading.Timer(0.05, held.release.set).start()

    with transaction.atomic():
        receipts = emit_many([("page.viewed", n) for n in range(1, 9)], timeout=SECONDS)

    wait_quiet()
    assert all(one.state == "accepted" for one in receipts)
    assert (sorted(held.data), dropped()) == (list(range(9)), 0)


def test_a_strict_emit_raises_what_found_no_room_in_time(held: Held) -> None:
    for number in range(3):
        emit("page.viewed", number, timeout=SECONDS)

    with pytest.raises(PublishTimeoutError):
        emit("page.viewed", timeout=0.01, strict=True)


def test_under_a_loop_a_script_does_not_wait_and_what_it_emits_is_not_dropped() -> None:
    done = run_program(
        f"""{SITE}
import asyncio, django
django.setup()
async def emit_all():
    each = [emit("a.b", 1, on_commit=False) for number in range(3000)]
    many = emit_many([("a.b", 1)] * 3000, on_commit=False)
    return [*each, *many]
receipts = asyncio.run(emit_all())
get_broker().close()
print(set(handled.values()) == {{sum(map(bool, receipts))}})
print({{one.reason for one in receipts if not one}})
"""
    )

    assert done.stdout == "True\n{'queue_full'}\n", done.stderr
