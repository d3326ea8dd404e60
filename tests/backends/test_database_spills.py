"""What memory consumers spill into the database: whose it is, and that it is whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pytest
from django.db import connections
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database import unclaimed
from django_gomq.backends.database.spill import LEASE, DatabaseSpillStore
from django_gomq.backends.database.unclaimed import SpilledRows
from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.spilling import Spilled
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.worker import Worker
from django_gomq.models import SpillingProcess
from tests.backends.databases import ALIAS, TABLES, execute
from tests.bus.waiting import LONG, wait_until

T = TypeVar("T")
NAME = "suite.spilling"


@pytest.fixture
def store(vendor: str) -> Iterator[DatabaseSpillStore]:
    made = make_store()
    yield made
    made.leave()
    for model in TABLES:
        execute(f"DELETE FROM {model._meta.db_table}")
    connections[ALIAS].close()


def make_store() -> DatabaseSpillStore:
    return DatabaseSpillStore("default", using=ALIAS)


def spilled(*numbers: int, priority: int = 5) -> list[Spilled]:
    return [
        Spilled(number, Message("a.b", b"%d" % number, priority=priority))  # type: ignore[arg-type]
        for number in numbers
    ]


def numbers_of(deliveries: Any) -> list[int]:
    return [delivery.message.data for delivery in deliveries]


def test_what_was_written_is_taken_in_its_order_and_once(
    store: DatabaseSpillStore,
) -> None:
    store.write(NAME, spilled(3, 4, 5))
    store.write(NAME, spilled(1, 2))
    store.write(NAME, spilled(6, priority=9))
    store.write("suite.other", spilled(7))

    assert numbers_of(store.take(NAME, 2)) == [6, 1]
    assert numbers_of(store.take(NAME, 9)) == [2, 3, 4, 5]
    assert not store.take(NAME, 9)
    assert numbers_of(store.take("suite.other", 9)) == [7]


def test_a_delivery_comes_back_as_it_was(store: DatabaseSpillStore) -> None:
    message = Message[Any](
        "a.b", '{"é": [1]}'.encode(), key="kéy", priority=7, headers={"a": "b"}
    )
    first_failed = time.time() - 5
    due = Clock.monotonic() + 500
    delivery = Delivery(message, due, 3, postponed=2, first_failed=first_failed)

    store.write(NAME, [Spilled(12, delivery)])
    (back,) = store.take(NAME, 1)

    assert (back.attempt, back.postponed, back.token) == (3, 2, 12)
    assert back.first_failed == pytest.approx(first_failed)
    assert back.available == pytest.approx(due, abs=LONG)
    read = back.message
    assert (read.id, read.type, read.key, read.priority, read.headers, read.data) == (
        message.id,
        "a.b",
        "kéy",
        7,
        {"a": "b"},
        {"é": [1]},
    )
    assert read.made == pytest.approx(message.made, abs=0.001)


def test_many_and_large_messages_are_written(store: DatabaseSpillStore) -> None:
    large = [
        Spilled(number, Message("a.b", b'"%s"' % (b"x" * 200_000)))  # type: ignore[arg-type]
        for number in range(1000, 1012)
    ]

    store.write(NAME, [*spilled(*range(500)), *large])

    assert len(store.take(NAME, 1000)) == 512


def test_a_body_that_is_no_json_is_given_back(store: DatabaseSpillStore) -> None:
    wrong = Spilled(2, Message("a.b", b"{"))  # type: ignore[arg-type]

    assert store.write(NAME, [*spilled(1), wrong, *spilled(3)]) == [wrong]
    assert numbers_of(store.take(NAME, 9)) == [1, 3]


def test_what_is_ours_is_nobody_elses_until_we_leave(
    store: DatabaseSpillStore,
) -> None:
    other = make_store()
    store.write(NAME, spilled(1, 2))

    assert other.adopt(NAME, None) == {}
    assert not other.take(NAME, 9)
    store.leave()
    assert other.adopt(NAME, None) == {"a.b": 2}
    assert numbers_of(other.take(NAME, 9)) == [1, 2]
    assert execute("SELECT 1 FROM gomq_spilled") == []
    other.leave()
    assert execute("SELECT 1 FROM gomq_spiller") == []


def test_consumers_and_brokers_have_what_is_theirs(store: DatabaseSpillStore) -> None:
    other = DatabaseSpillStore("other", using=ALIAS)
    store.write(NAME, spilled(1))
    store.write(NAME.upper(), spilled(2))
    store.leave()

    assert other.adopt(NAME, None) == {}
    assert store.adopt(NAME.upper(), None) == {"a.b": 1}
    assert numbers_of(store.take(NAME.upper(), 9)) == [2]
    other.leave()


def test_who_is_silent_for_a_lease_loses_what_it_had_and_finds_out(
    store: DatabaseSpillStore,
) -> None:
    other = make_store()
    store.write(NAME, spilled(1, 2, 3))
    assert numbers_of(store.take(NAME, 1)) == [1]
    execute("UPDATE gomq_spiller SET heartbeat = heartbeat - %s", LEASE - 10)
    assert other.adopt(NAME, None) == {}, "before the lease had ended"
    execute("UPDATE gomq_spiller SET heartbeat = heartbeat - 20")
    store.beat()
    assert other.adopt(NAME, None) == {}, "although it had beaten"

    execute("UPDATE gomq_spiller SET heartbeat = heartbeat - %s", LEASE + 1)
    assert other.adopt(NAME, 1) == {"a.b": 1}
    assert not store.take(NAME, 9)
    store.write(NAME, spilled(4))
    assert numbers_of(store.take(NAME, 9)) == [4]
    assert numbers_of(other.take(NAME, 9)) == [2]
    assert other.adopt(NAME, 1) == {"a.b": 1}
    assert numbers_of(other.take(NAME, 9)) == [3]
    other.leave()


def test_each_of_many_processes_adopts_other_messages(
    store: DatabaseSpillStore,
) -> None:
    store.write(NAME, spilled(*range(400)))
    store.leave()
    others = [make_store() for _ in range(4)]
    barrier = threading.Barrier(len(others))

    def work(other: DatabaseSpillStore) -> list[int]:
        handled: list[int] = []
        barrier.wait(LONG)
        while again(lambda: other.adopt(NAME, 30)):
            handled += numbers_of(again(lambda: other.take(NAME, 100)))
        other.leave()
        return handled

    with ThreadPoolExecutor(len(others)) as pool:
        found = [pool.submit(work, other) for other in others]
        handled = [number for one in found for number in one.result()]
    while store.adopt(NAME, 400):  # what was locked while the others looked
        handled += numbers_of(store.take(NAME, 400))

    assert sorted(handled) == list(range(400))


def again(step: Callable[[], T]) -> T:
    """Ask until the database answers: two may wait for one another."""
    for _ in range(20):
        try:
            return step()
        except Exception:  # noqa: BLE001 - the spiller goes on after any
            continue
    return step()


def test_one_of_many_processes_adopts_all_where_order_asks_for_it(
    store: DatabaseSpillStore,
) -> None:
    store.write(NAME, spilled(*range(100)))
    store.leave()
    others = [make_store() for _ in range(4)]
    barrier = threading.Barrier(len(others))

    def adopt(other: DatabaseSpillStore) -> int:
        barrier.wait(LONG)
        return sum(again(lambda: other.adopt(NAME, None)).values())

    with ThreadPoolExecutor(len(others)) as pool:
        counts = sorted(pool.map(adopt, others))

    assert counts == [0, 0, 0, 100]
    for other in others:
        other.leave()


def unanswered(
    store: DatabaseSpillStore, monkeypatch: pytest.MonkeyPatch, *, is_done: bool
) -> None:
    """Have the next transaction end without an answer, done or not."""
    run = store._connection.run

    def cut(step: Callable[[CursorWrapper], T]) -> T:
        monkeypatch.undo()
        if is_done:
            run(step)
        raise ConnectionError

    monkeypatch.setattr(store._connection, "run", cut)


@pytest.mark.parametrize("is_done", [False, True])
def test_a_write_without_an_answer_is_done_once(
    store: DatabaseSpillStore, monkeypatch: pytest.MonkeyPatch, *, is_done: bool
) -> None:
    store.write(NAME, spilled(1))
    unanswered(store, monkeypatch, is_done=is_done)
    with pytest.raises(ConnectionError):
        store.write(NAME, spilled(2, 3))

    store.write(NAME, spilled(2, 3))

    assert numbers_of(store.take(NAME, 9)) == [1, 2, 3]


@pytest.mark.parametrize("is_done", [False, True])
def test_what_was_taken_without_an_answer_is_not_lost(
    store: DatabaseSpillStore, monkeypatch: pytest.MonkeyPatch, *, is_done: bool
) -> None:
    store.write(NAME, spilled(1, 2, 3, 4))
    unanswered(store, monkeypatch, is_done=is_done)
    with pytest.raises(ConnectionError):
        store.take(NAME, 3)

    assert numbers_of(store.take(NAME, 2)) == [1, 2]
    assert numbers_of(store.take(NAME, 2)) == [3]
    assert numbers_of(store.take(NAME, 2)) == [4]
    assert not store.take(NAME, 2)


def test_a_row_that_nobody_can_read_goes_to_the_handler_to_fail(
    store: DatabaseSpillStore,
) -> None:
    store.write(NAME, spilled(1))
    execute("UPDATE gomq_spilled SET envelope = %s", b"garbage")

    (delivery,) = store.take(NAME, 1)

    assert (delivery.message.type, delivery.message.body) == ("a.b", b"garbage")


def test_without_its_tables_it_says_what_to_run(store: DatabaseSpillStore) -> None:
    store.check()
    with connections[ALIAS].schema_editor() as editor:
        editor.delete_model(SpillingProcess)
    try:
        with pytest.raises(ConfigurationError, match="gomq_spiller: run manage.py mig"):
            store.check()
    finally:
        with connections[ALIAS].schema_editor() as editor:
            editor.create_model(SpillingProcess)


class _Spilling(Environment):
    def make_spill_store(self, broker: str) -> DatabaseSpillStore:
        return DatabaseSpillStore(broker, using=ALIAS)


def test_a_stop_leaves_nothing_behind_that_the_next_process_does_not_handle(
    store: DatabaseSpillStore,
) -> None:
    handled: dict[str, list[int]] = {}
    gate = threading.Event()

    def handle(message: Message[int]) -> None:
        gate.wait(LONG)
        handled.setdefault(str(message.key), []).append(message.data)

    def run(numbers: range) -> Broker:
        worker = Worker(4, environment=_Spilling())
        broker = Broker(MemoryBackend, get_worker=lambda: worker)
        consume = partial(broker.consume, "a.b", handle, name=NAME)
        consume(overflow="spill", capacity=20, concurrency=3, ordered_by_key=True)
        broker.start()
        for number in numbers:
            message = Message[Any]("a.b", b"%d" % number, key=f"k{number % 7}")
            broker.publish(message, timeout=LONG)
        return broker

    one = run(range(2000))
    wait_until(lambda: execute("SELECT count(*) FROM gomq_spilled") >= [(1900,)])
    gate.set()
    left = one.close(timeout=0)
    wait_until(lambda: left.spilled + sum(map(len, [*handled.values()])) == 2000)
    two = run(range(2000, 3000))
    wait_until(lambda: two.stats().is_quiet)

    assert sum(map(len, handled.values())) == 3000
    for numbers in handled.values():
        assert numbers == sorted(numbers)
    assert execute("SELECT count(*) FROM gomq_spilled") == [(0,)]
    assert two.close(timeout=LONG).is_clean
    assert execute("SELECT count(*) FROM gomq_spiller") == [(0,)]


OTHER = "suite.other"


def test_what_is_spilled_is_counted_by_consumer(store: DatabaseSpillStore) -> None:
    other = DatabaseSpillStore("other", using=ALIAS)
    store.write(NAME, spilled(1, 2))
    store.write(OTHER, spilled(3))
    other.write(NAME, spilled(4))

    found = unclaimed.find(ALIAS)

    assert sorted(found, key=lambda rows: (rows.broker, rows.consumer)) == [
        SpilledRows("default", OTHER, 1),
        SpilledRows("default", NAME, 2),
        SpilledRows("other", NAME, 1),
    ]
    other.leave()


def test_what_nobody_has_is_discarded_alone(
    store: DatabaseSpillStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unclaimed, "MAX_STEP", 2)
    ended, crashed = make_store(), make_store()
    ended.write(NAME, spilled(1, 2, 3, 4))
    ended.write(OTHER, spilled(5))
    ended.leave()
    crashed.write(NAME, spilled(6))
    execute("UPDATE gomq_spiller SET heartbeat = heartbeat - %s", LEASE + 1)
    store.write(NAME, spilled(7))

    assert unclaimed.discard(ALIAS, "default", NAME) == 5

    counts = {rows.consumer: rows.count for rows in unclaimed.find(ALIAS)}
    assert counts == {NAME: 1, OTHER: 1}
    assert numbers_of(store.take(NAME, 9)) == [7]
    crashed.leave()


def test_what_nobody_has_becomes_dead_letters(store: DatabaseSpillStore) -> None:
    message = Message[Any]("a.b", b"1", headers={"a": "b"})
    first_failed = time.time() - 500
    failed = Delivery(message, Clock.monotonic(), 3, first_failed=first_failed)
    store.write(NAME, [Spilled(1, failed), *spilled(2)])
    store.leave()

    assert unclaimed.bury(ALIAS, "default", NAME) == 2

    assert execute("SELECT 1 FROM gomq_spilled") == []
    one, two = execute(
        "SELECT event_id, broker, consumer, type, message_id, attempt, error_type, "
        "first_failed, failed FROM gomq_dead_letter ORDER BY id"
    )
    assert one[:7] == (None, "default", NAME, "a.b", message.id, 3, "ConsumerRemoved")
    assert one[7] == pytest.approx(first_failed)
    assert two[5:7] == (1, "ConsumerRemoved")
    assert two[7] == pytest.approx(two[8], abs=LONG)


def test_another_consumer_takes_what_it_was_handed(store: DatabaseSpillStore) -> None:
    store.write(NAME, spilled(1, 2))
    store.leave()

    assert unclaimed.hand_on(ALIAS, "default", NAME, OTHER) == 2

    assert store.adopt(NAME, None) == {}
    assert store.adopt(OTHER, None) == {"a.b": 2}
    assert numbers_of(store.take(OTHER, 9)) == [1, 2]


def test_a_database_without_the_table_has_nothing_spilled(
    store: DatabaseSpillStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unclaimed, "missing_tables", lambda using: ["gomq_spilled"])
    store.write(NAME, spilled(1))

    assert unclaimed.find(ALIAS) == []
