"""A disk that is full: what was taken is kept, the rest refused, and work goes on."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

import pytest
from django.db import Error, transaction

from django_gomq.bus.delivery import Reject
from django_gomq.bus.errors import BackendUnavailableError
from django_gomq.bus.message import Message
from django_gomq.testing.conformance.site import (
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends import disks
from tests.backends.databases import ALIAS, execute
from tests.backends.disks import Disk
from tests.backends.test_database_concurrency import Failures

MANY = 1000
WAITING = 20
ATTEMPTS = 8
THREADS = 3
"""Of a worker: reader, settler and pulse each tell of an outage once."""


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    with disks.mounted() as made:
        yield made


@pytest.fixture(scope="module", params=list(disks.VENDORS))
def vendor(
    request: pytest.FixtureRequest, disk: Disk, queries_allowed: None
) -> Iterator[str]:
    name = request.param
    assert isinstance(name, str)
    with disks.VENDORS[name](disk):
        yield name


@pytest.fixture
def full(processes: Site, disk: Disk) -> Iterator[Disk]:
    """The disk, which the test may fill."""
    yield disk
    disk.make_room()


def large(number: int) -> Message[list[object]]:
    """Return a message that no compression makes small."""
    noise = base64.b64encode(os.urandom(60_000)).decode()
    return Message(EVENT, json.dumps([number, noise]).encode())


def numbers_of(notes: Notes) -> list[int]:
    return [data[0] for data in notes.numbers]


def publish_until_refused(process: Process) -> tuple[list[int], Exception]:
    """Return what was taken, and what the next one met."""
    taken: list[int] = []
    for number in range(MANY):
        try:
            process.broker.publish(large(number))
        except BackendUnavailableError as error:
            return taken, error
        taken.append(number)
    raise AssertionError("the disk was never full")


def is_taken(process: Process, number: int) -> bool:
    return process.broker.publish_many([large(number)]) == [None]


def failed(process: Process, name: str) -> int:
    """Return how many calls of this method have failed."""
    return sum(call.failed for call in process.calls.of(name))


def test_what_is_taken_is_handled_and_what_is_not_is_refused(
    processes: Site, full: Disk
) -> None:
    notes = Notes()
    worker = processes.process()
    worker.consume(notes)
    full.fill()

    taken, error = publish_until_refused(worker)

    assert f"Database {ALIAS!r}: " in str(error)
    with pytest.raises(Error), transaction.atomic(using=ALIAS):
        for number in range(MANY):
            worker.backend.publish_in_transaction([large(-number)], ALIAS)
    full.make_room()
    wait_until(lambda: is_taken(worker, MANY))
    taken.append(MANY)
    wait_until(lambda: set(numbers_of(notes)) >= set(taken))
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    assert set(numbers_of(notes)) == set(taken)


def test_what_cannot_be_settled_is_kept_and_told_later(
    processes: Site, full: Disk
) -> None:
    failures, gate = Failures(), processes.gate()
    worker = processes.process(hooks=[failures])

    def give_up(message: Message[object]) -> None:
        gate.handle(message)
        raise Reject("no use")

    worker.consume(give_up)
    worker.broker.publish(large(1))
    wait_until(lambda: gate.entered)
    full.fill()

    gate.open()

    wait_until(lambda: failed(worker, "settle") >= ATTEMPTS)
    assert worker.calls.done("settle") == 0
    assert execute("SELECT count(*) FROM gomq_dead_letter") == [(0,)]
    assert execute("SELECT count(*) FROM gomq_delivery") == [(1,)]
    assert len(failures.errors) <= THREADS
    full.make_room()
    wait_until(lambda: execute("SELECT count(*) FROM gomq_delivery") == [(0,)])
    assert execute("SELECT count(*) FROM gomq_dead_letter") == [(1,)]
    worker.wait_until_quiet()


def test_a_full_disk_is_told_of_once_and_not_at_each_attempt(
    processes: Site, full: Disk
) -> None:
    sender = processes.process(may_start=lambda: False)
    for number in range(WAITING):
        sender.broker.publish(large(number))
    failures, notes = Failures(), Notes()
    worker = processes.process(hooks=[failures])
    worker.consume(notes, starts=False)
    full.fill()

    worker.broker.start()

    wait_until(lambda: failed(worker, "fetch") >= ATTEMPTS)
    assert len(failures.errors) <= THREADS
    full.make_room()
    wait_until(lambda: set(numbers_of(notes)) == set(range(WAITING)))
