"""Exceptions that a signal handler raises while a commit publishes its events."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import connection, transaction

from django_gomq import Receipt, emit, emit_many, get_broker
from django_gomq.outgoing import CHUNK
from tests.bus.interrupting import (
    Interrupted,
    comes_out_at,
    interruptible,
    undisturbed,
)
from tests.bus.shooting import Shot
from tests.bus.waiting import fast_switching
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, fill, hold, listen, wait_quiet
from tests.django_site.waiting import wait_until
from tests.untraced import untraced

pytestmark = pytest.mark.django_db(transaction=True)

LEAST, MOST = 150, 10_000
"""Commits: as many as it takes until a signal has hit a flush."""
STEPS = 300
"""More than any flush takes."""


@pytest.fixture
def interrupts() -> Iterator[threading.Event]:
    """A SIGVTALRM raises Interrupted, once, if this was set."""
    gc.disable()  # plugins have it call them, and what that raises is lost
    try:
        with untraced(), interruptible() as armed:
            yield armed
    finally:
        gc.enable()


@pytest.fixture
def _without_errors_in_records() -> Iterator[None]:
    """Have no record of a log keep frames, and so a buffer whose flush never began."""
    make = logging.getLogRecordFactory()

    def make_without(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        # Django's has the exception in both.
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        return record

    logging.setLogRecordFactory(make_without)
    yield
    logging.setLogRecordFactory(make)


def told_of(receipts: Sequence[Receipt]) -> dict[str, set[str]]:
    """Wait until it is known what became of each event; return their ids by that."""

    def is_told() -> bool:
        gc.collect()
        return not any(receipt.state == "pending" for receipt in receipts)

    wait_until(is_told, "what became of each event")
    told = {"accepted": set[str](), "rolled_back": set[str](), "unknown": set[str]()}
    for receipt in receipts:
        told[receipt.reason or receipt.state].add(receipt.message.id)
    return told


def hits_in(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many signals came while a buffer was flushed."""
    return sum("CommitBuffer" in record.getMessage() for record in caplog.records)


# What comes up in the __del__ of a buffer that was flushed.
unraisable = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@unraisable
@pytest.mark.usefixtures("_without_errors_in_records")
@pytest.mark.parametrize("count", [1, 2, 30])
def test_every_event_of_a_commit_is_published_once_whatever_interrupts_it(
    live_site: UseSite,
    interrupts: threading.Event,
    caplog: pytest.LogCaptureFixture,
    count: int,
) -> None:
    seen = listen("page.viewed", "page.left", capacity=100_000)
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 100_000}}})
    receipts: list[Receipt] = []

    def commit(number: int, shot: Shot) -> None:
        with transaction.atomic():
            Record.objects.create(patient_id=number)
            transaction.on_commit(interrupts.set, robust=True)
            transaction.on_commit(shot.fire, robust=True)
            for place in range(count):
                event = "page.left" if place % 3 else "page.viewed"
                receipts.append(emit(event, number))
            transaction.on_commit(shot.land, robust=True)

    between = commits = 0
    with fast_switching():
        while commits < MOST and (commits < LEAST or not hits_in(caplog)):
            try:
                commit(commits, Shot(commits % 50 * 4e-6))
            except Interrupted:  # in Django, before it came to our callback or after
                between += 1
            commits += 1
    hits = hits_in(caplog)
    told = told_of(receipts)
    wait_quiet()

    handled = Counter(message.id for message in seen.messages)
    assert hits, "no signal hit a flush"
    assert len(told["rolled_back"]) <= between * count
    assert len(told["unknown"]) <= hits * count, "more than a chunk is in doubt"
    assert told["accepted"] <= set(handled) <= told["accepted"] | told["unknown"]
    assert count == 1 or set(handled.values()) == {1}
    assert Record.objects.count() == commits


@unraisable
@pytest.mark.parametrize("count", [1, 2])
def test_no_step_of_a_commit_is_one_where_an_interrupt_loses_its_events(
    live_site: UseSite, count: int
) -> None:
    seen = listen("page.viewed", "page.left", capacity=100_000)
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 100_000}}})
    receipts: list[Receipt] = []

    def callbacks_of_commit() -> Callable[[], object]:
        """Return what Django calls once it has committed."""
        with transaction.atomic():
            receipts.extend(emit_many([("page.viewed", 1), ("page.left", 2)][:count]))
            entries = connection.run_on_commit
            connection.run_on_commit = []
        connection.run_on_commit = entries
        return connection.run_and_clear_commit_hooks

    with undisturbed():  # the first two only look what there is
        steps = [comes_out_at(step, callbacks_of_commit()) for step in range(2, STEPS)]
    told = told_of(receipts)
    wait_quiet()

    assert steps.index(None) > 30, "a commit has more steps"
    assert not told["rolled_back"]
    handled = {message.id for message in seen.messages}
    assert told["accepted"] <= handled <= told["accepted"] | told["unknown"]


def test_an_interrupted_wait_for_room_leaves_a_chunk_in_doubt_and_publishes_the_rest(
    live_site: UseSite, interrupts: threading.Event
) -> None:
    held: Held = hold("page.viewed")
    other = listen("page.left", capacity=1000)
    live_site(
        FLUSH_TIMEOUT=30.0,
        BROKERS={"default": {"OPTIONS": {"capacity": CHUNK}}},
        THREADS=2,
    )
    fill("page.viewed", held, CHUNK - 1)  # the queue takes one more
    receipts: list[Receipt] = []

    def shoot() -> None:
        queue = get_broker()._current_runtime().backend._queues.by_type["page.viewed"]  # type: ignore[attr-defined]
        wait_until(lambda: queue._waiters, "the flush to wait")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGVTALRM)

    shooter = threading.Thread(target=shoot)
    shooter.start()
    interrupts.set()
    # Django logs what a robust callback raises: the commit stands.
    with transaction.atomic():
        receipts += [emit("page.viewed", number) for number in range(4)]
        receipts += [emit("page.left", number) for number in range(CHUNK)]
    shooter.join()
    held.release.set()
    wait_quiet()

    states = [receipt.reason or receipt.state for receipt in receipts]
    assert states == ["unknown"] * CHUNK + ["accepted"] * 4
    assert [message.data for message in other.messages] == [*range(CHUNK - 4, CHUNK)]
    first = {receipt.message.id for receipt in receipts[:4]}
    handled = [message.id for message in held.messages if message.id in first]
    assert handled == [receipts[0].message.id]  # which nobody can know
