"""Several processes and writers at once: all is handled, nothing is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from threading import Event, Lock, Thread
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database.connection import OwnConnection
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.site import EVENT, Notes, Site
from tests.backends.databases import ALIAS, execute
from tests.bus.waiting import LONG, run_threads, wait_until

WRITERS, EVENTS = 4, 40


class Failures(Hook):
    """Notes what of the bus itself has failed."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []

    def failed(self, part: str, error: BaseException) -> None:
        self.errors.append((part, error))


def test_four_writers_and_three_workers_report_no_lock_and_no_deadlock(
    processes: Site,
) -> None:
    failures, notes = Failures(), Notes()
    workers = [processes.process(hooks=[failures]) for _ in range(3)]
    for worker in workers:
        worker.consume(notes, concurrency=2)
    sender = processes.process(hooks=[failures])
    sender.consume(Notes(), "suite.other", name="suite.other")

    def write(number: int) -> Callable[[], None]:
        def emit() -> None:
            try:
                for count in range(EVENTS):
                    sender.send(number * EVENTS + count)
            finally:
                connections[ALIAS].close()

        return emit

    run_threads(*(write(number) for number in range(WRITERS)))

    wait_until(lambda: len(notes.numbers) >= WRITERS * EVENTS)
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    assert Counter(notes.numbers) == Counter(range(WRITERS * EVENTS))
    assert failures.errors == []


def test_an_event_that_commits_late_is_handled_after_a_higher_one(
    vendor: str, processes: Site
) -> None:
    if vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time: none can commit late")
    process, notes = processes.process(), Notes()
    process.consume(notes)
    written, go_on = Event(), Event()

    def commit_late() -> None:
        with transaction.atomic(using=ALIAS):
            process.backend.publish_in_transaction([Message(EVENT, b"1")], ALIAS)
            written.set()
            go_on.wait(LONG)
        connections[ALIAS].close()

    late = Thread(target=commit_late)
    late.start()
    assert written.wait(LONG)
    process.send(2)
    wait_until(lambda: notes.numbers == [2])

    go_on.set()

    late.join(LONG)
    wait_until(lambda: notes.numbers == [2, 1])


def test_a_consumer_that_is_recorded_while_events_wait_gets_those(
    processes: Site,
) -> None:
    one, old = processes.process(), Notes()
    one.consume(old, starts=False)
    web = processes.process(may_start=lambda: False)
    web.send(1, 2)

    two, new = processes.process(), Notes()
    two.consume(new, name="suite.new")

    wait_until(lambda: sorted(new.numbers) == [1, 2])
    one.broker.start()
    wait_until(lambda: sorted(old.numbers) == [1, 2])


def test_a_key_keeps_its_order_through_retries_over_three_processes(
    processes: Site,
) -> None:
    count, done = 30, dict[str, list[int]]()
    lock = Lock()

    def handle(message: Message[Any]) -> None:
        if message.data % 4 == 0 and message.attempt == 1:
            raise ValueError
        with lock:
            done.setdefault(str(message.key), []).append(message.data)

    workers = [processes.process() for _ in range(3)]
    for worker in workers:
        worker.consume(
            handle,
            ordered_by_key=True,
            concurrency=2,
            capacity=4,
            retry=Retry(attempts=3, min_delay=0.02, max_delay=0.05),
        )
    for number in range(count):
        workers[0].send(number, key=f"key {number % 3}")

    wait_until(lambda: sum(map(len, done.values())) >= count)
    assert done == {f"key {key}": list(range(key, count, 3)) for key in range(3)}


def test_the_bus_reads_what_is_committed_whatever_the_site_has_set(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time, and no such setting")
    options, question = {
        "postgresql": (
            {"options": "-c default_transaction_isolation=serializable"},
            "SHOW transaction_isolation",
        ),
        "mariadb": ({"isolation_level": "serializable"}, "SELECT @@tx_isolation"),
    }[vendor]
    mine = connections.databases[ALIAS]
    monkeypatch.setitem(mine, "OPTIONS", {**mine["OPTIONS"], **options})

    def ask(cursor: CursorWrapper) -> str:
        cursor.execute(question)
        ((answer,),) = cursor.fetchall()
        return str(answer)

    with closing(OwnConnection(ALIAS, LONG)) as own:
        answer = own.run(ask)

    assert answer.lower().replace("-", " ") == "read committed"
