"""Idempotent consumers: what they did in the broker's database is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections, transaction

from django_gomq.bus.backend import HistoryFilter
from django_gomq.bus.delivery import BatchFailed
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.worker import Worker
from django_gomq.database import DjangoEnvironment
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    LONG,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.databases import ALIAS, execute

Effects = Callable[[], list[int]]
Make = Callable[[], Process]
SOON = Retry(attempts=3, min_delay=0.01, max_delay=0.02)


@pytest.fixture
def effects(vendor: str) -> Iterator[Effects]:
    """What handlers wrote into a table of the project's, in its order."""
    execute("CREATE TABLE effect (place integer PRIMARY KEY, number integer)")
    yield lambda: [row[0] for row in execute("SELECT number FROM effect ORDER BY 1")]
    connections[ALIAS].close()
    execute("DROP TABLE effect")


def write(message: Message[Any]) -> None:
    execute(
        "INSERT INTO effect (place, number) "
        "SELECT coalesce(max(place), 0) + 1, %s FROM effect",
        message.data,
    )


def write_all(messages: list[Message[Any]]) -> None:
    for message in messages:
        write(message)


@pytest.fixture
def make(processes: Site) -> Iterator[Make]:
    """Make processes whose handlers have Django's transactions."""
    made: list[tuple[Process, Worker]] = []

    def make() -> Process:
        worker = Worker(4, environment=DjangoEnvironment())
        made.append((processes.process(get_worker=lambda: worker), worker))
        return made[-1][0]

    yield make
    for process, worker in made:
        process.mend()
        process.end()
        worker.stop(timeout=LONG)


def consume(process: Process, handler: Any, **options: Any) -> None:
    process.consume(handler, idempotent=True, **options)


def handle_without_ack(site: Site, make: Make, *numbers: int) -> None:
    """Have messages handled and committed by a process that dies before the ack."""
    process = make()

    def forbid(name: str, given: object) -> None:
        if name == "settle":
            raise ConnectionError("it dies here")

    process.calls.before = forbid
    consume(process, write)
    process.send(*numbers)
    wait_until(lambda: len(execute("SELECT 1 FROM gomq_inbox")) == len(numbers))
    process.cut()
    site.let_lease_end()


def test_what_was_committed_before_its_process_died_is_not_done_again(
    processes: Site, make: Make, effects: Effects
) -> None:
    handle_without_ack(processes, make, 1, 2)
    other, notes = make(), Notes(write)

    consume(other, notes)

    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    other.wait_until_quiet()
    assert (notes.numbers, effects()) == ([], [1, 2])
    assert (other.stats().succeeded, other.stats().dead_lettered) == (2, 0)


def test_an_attempt_that_fails_leaves_no_note_and_is_made_again(
    processes: Site, make: Make, effects: Effects
) -> None:
    def fail_once(message: Message[Any]) -> None:
        write(message)
        if message.attempt == 1:
            raise ValueError

    process, notes = make(), Notes(fail_once)
    consume(process, notes, retry=SOON)

    process.send(1)

    wait_until(lambda: notes.handled == [(1, 1), (1, 2)])
    process.wait_until_quiet()
    assert effects() == [1]


def test_an_attempt_that_was_rolled_back_in_silence_is_made_again(
    make: Make, effects: Effects
) -> None:
    attempts: list[int] = []

    def handle(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        write(message)
        if len(attempts) == 1:  # as where an error of the database is caught
            transaction.set_rollback(True, using=ALIAS)

    process = make()
    process.consume(Notes(handle), idempotent=True, retry=SOON)

    process.send(7)
    wait_until(lambda: process.stats().succeeded)

    assert (attempts, effects()) == ([1, 2], [7])


def test_a_batch_has_only_what_was_not_handled(
    processes: Site, make: Make, effects: Effects
) -> None:
    handle_without_ack(processes, make, 1, 2)
    other = make()
    seen: list[list[int]] = []

    def handle(messages: list[Message[Any]]) -> None:
        seen.append([message.data for message in messages])
        write_all(messages)

    consume(other, handle, batch=10, starts=False)
    other.send(3)
    other.broker.start()

    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    wait_until(lambda: effects() == [1, 2, 3])
    other.wait_until_quiet()
    assert [number for batch in seen for number in batch] == [3]
    assert other.stats().succeeded == 3


@pytest.mark.parametrize("options", [{"idempotent": True}, {"atomic": ALIAS}])
def test_what_a_failed_batch_does_not_name_is_done(
    processes: Site, make: Make, effects: Effects, options: dict[str, Any]
) -> None:
    process = make()

    def handle(messages: list[Message[Any]]) -> None:
        write_all(messages)
        bad = {one.id: ValueError() for one in messages if one.data == 2}
        if bad:
            raise BatchFailed(bad)

    process.consume(handle, batch=10, starts=False, **options)
    process.send(1, 2, 3)
    process.broker.start()

    wait_until(process.broker.dead_letters)
    process.wait_until_quiet()
    assert effects() == [1, 3]
    assert (process.stats().succeeded, process.stats().dead_lettered) == (2, 1)


def test_a_message_that_was_published_twice_is_handled_once(
    processes: Site, make: Make, effects: Effects
) -> None:
    process, notes = make(), Notes(write)
    consume(process, notes)
    for name in ("no UUID", "no uuid", "no UUID"):
        process.broker.publish(Message(EVENT, b"1", number=name))

    wait_until(lambda: process.stats().succeeded == 3)
    assert effects() == [1, 1]


@pytest.mark.parametrize("kind", ["each", "batch"])
def test_what_another_process_is_at_comes_again_when_that_has_ended(
    vendor: str, processes: Site, make: Make, effects: Effects, kind: str
) -> None:
    if vendor == "sqlite":
        pytest.skip(
            "SQLite has one writer at a time: the other would wait at its BEGIN"
        )
    one, gate = make(), processes.gate()

    def handle(message: Message[Any]) -> None:
        write(message)
        gate.handle(message)

    consume(one, handle)
    one.send(1)
    wait_until(lambda: gate.entered)
    one.cut()
    processes.let_lease_end()
    two = make()
    batch = {"batch": 5} if kind == "batch" else {}
    consume(two, write_all if batch else write, **batch)
    wait_until(lambda: two.stats().in_flight == 1)

    gate.open()

    wait_until(lambda: two.stats().succeeded == 1)
    assert effects() == [1]


@pytest.mark.parametrize("way", ["history", "dead letter"])
def test_a_replay_is_handled_again(
    processes: Site, make: Make, effects: Effects, way: str
) -> None:
    process, notes = make(), Notes(write)
    consume(process, notes)
    process.send(1)
    wait_until(lambda: effects() == [1])
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    ((event, envelope),) = execute("SELECT id, envelope FROM gomq_event")

    if way == "history":
        assert (
            process.backend.replay_history(CONSUMER, HistoryFilter(), dry_run=True) == 1
        )
        assert (
            process.backend.replay_history(CONSUMER, HistoryFilter(), dry_run=False)
            == 1
        )
    else:
        execute(
            "INSERT INTO gomq_dead_letter (event_id, broker, consumer, type, "
            "message_id, trace_id, attempt, error_type, error, traceback, "
            "first_failed, failed, envelope) "
            "VALUES (%s, 'default', %s, %s, '', '', 1, '', '', '', 0, 0, %s)",
            *(event, CONSUMER, EVENT, envelope),
        )
        [letter] = process.broker.dead_letters()
        assert process.broker.replay([letter.id]) == 1

    wait_until(lambda: effects() == [1, 1])
    process.wait_until_quiet()
    assert len(execute("SELECT 1 FROM gomq_inbox")) == 1


def test_a_note_stays_as_long_as_its_event(
    processes: Site, make: Make, effects: Effects
) -> None:
    process = make()
    consume(process, write)
    process.send(1, 2)
    wait_until(lambda: effects() == [1, 2])
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    execute(
        "UPDATE gomq_event SET made = made - 100 "
        "WHERE id IN (SELECT least FROM (SELECT min(id) AS least FROM gomq_event) one)"
    )

    assert process.backend.prune(50.0) == 1
    assert len(execute("SELECT 1 FROM gomq_inbox")) == 1
    process.backend.prune(-1.0)
    assert execute("SELECT 1 FROM gomq_inbox") == []


def test_handlers_without_transactions_are_refused(processes: Site) -> None:
    process, notes = processes.process(), Notes()
    consume(process, notes)

    process.send(1)

    wait_until(process.broker.dead_letters)
    [letter] = process.broker.dead_letters()
    assert (letter.error_type, notes.numbers) == (ConfigurationError.__name__, [])
