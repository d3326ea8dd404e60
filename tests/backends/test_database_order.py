"""Order by key over several processes: one of a key at a time, replayed ones too."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Any

import pytest
from django.db import connections, transaction

from django_gomq.bus.backend import REPLAYED, HistoryFilter
from django_gomq.bus.message import Message
from django_gomq.testing.conformance.site import (
    CONSUMER,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.databases import ALIAS, execute

KEYS, EVENTS, REPLAYS = 3, 24, 4


def fail_at_first(message: Message[Any]) -> None:
    if message.data == 1:
        raise ValueError


def replay(process: Process, way: str) -> None:
    """Hand the first event out once more."""
    if way == "dead letter":
        [letter] = process.broker.dead_letters()
        assert process.broker.replay([letter.id]) == 1
    else:
        assert (
            process.backend.replay_history(CONSUMER, HistoryFilter(), dry_run=False)
            == 1
        )


@pytest.mark.parametrize("way", ["dead letter", "history"])
def test_a_replayed_one_waits_for_a_later_one_of_its_key_that_is_in_work(
    processes: Site, way: str
) -> None:
    first, notes = processes.process(), Notes(fail_at_first)
    first.consume(notes, ordered_by_key=True)
    first.send(1, key="one")
    wait_until(first.broker.dead_letters)
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    first.close()
    one, gate = processes.process(), processes.gate()
    one.consume(gate, ordered_by_key=True, capacity=1)
    one.send(2, key="one")
    wait_until(lambda: gate.entered == [(2, 1)])
    two, later = processes.process(), Notes()
    two.consume(later, ordered_by_key=True)

    replay(two, way)
    two.send(3, key="another")

    wait_until(lambda: 3 in later.numbers)
    assert later.numbers == [3]
    gate.open()
    wait_until(lambda: 1 in [*later.numbers, *gate.numbers])


def test_no_two_of_a_key_are_in_work_at_once_while_history_is_replayed(
    processes: Site,
) -> None:
    lock, in_work, met = Lock(), Counter[str](), list[str]()
    replayed = Counter[int]()

    def handle(message: Message[Any]) -> None:
        key = str(message.key)
        with lock:
            in_work[key] += 1
            if in_work[key] > 1:
                met.append(key)
        execute("SELECT 1")
        connections[ALIAS].close()
        with lock:
            in_work[key] -= 1
            replayed[message.data] += REPLAYED in message.headers

    workers = [processes.process() for _ in range(3)]
    for worker in workers:
        worker.consume(handle, ordered_by_key=True, concurrency=4, capacity=8)
    for number in range(EVENTS):
        workers[0].send(number, key=f"key {number % KEYS}")
    count = 0
    for _ in range(REPLAYS):
        wait_until(lambda: not execute("SELECT 1 FROM gomq_outbox"))
        count += workers[1].backend.replay_history(
            CONSUMER, HistoryFilter(), dry_run=False
        )

    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery") == [])
    wait_until(lambda: sum(replayed.values()) >= count)
    assert met == []


def test_while_another_process_claims_for_an_ordered_consumer_nothing_is_claimed(
    vendor: str, processes: Site
) -> None:
    if vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    process, notes = processes.process(), Notes()
    process.consume(notes, ordered_by_key=True)

    with transaction.atomic(using=ALIAS):
        execute("SELECT 1 FROM gomq_consumer WHERE name = %s FOR UPDATE", CONSUMER)
        processes.in_thread(lambda: process.send(1, key="one"))
        wait_until(lambda: execute("SELECT 1 FROM gomq_delivery WHERE state = 0"))
        looked = process.calls.done("fetch")
        wait_until(lambda: process.calls.done("fetch") > looked + 3)
        assert notes.numbers == []

    wait_until(lambda: notes.numbers == [1])
