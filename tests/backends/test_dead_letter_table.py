"""The table as the store of dead letters of brokers without tables, on every vendor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from django.db import OperationalError
from django.db.backends.utils import CursorWrapper

from django_gomq.backends.database import dead_letters
from django_gomq.bus.broker import Broker
from django_gomq.bus.dead_letters import DeadLetter, NoStoreError, make_dead_letter
from django_gomq.bus.delivery import Delivery, Reject
from django_gomq.bus.message import Message
from django_gomq.dead_letters.rows import Choice
from django_gomq.dead_letters.store import TableStore
from django_gomq.models import StoredDeadLetter
from django_gomq.testing import live
from django_gomq.testing.conformance.site import wait_until
from tests.backends.databases import ALIAS, TABLES, DatabaseHarness, execute
from tests.django_site import burying


@pytest.fixture(autouse=True)
def _emptied(vendor: str) -> Iterator[None]:
    with live():  # else a test asks no database
        yield
    for model in TABLES:
        execute(f"DELETE FROM {model._meta.db_table}")


@pytest.fixture
def store() -> TableStore:
    return TableStore(lambda: ALIAS, "tests")


def letter(body: bytes = b"1", consumer: str = "c", **fields: Any) -> DeadLetter:
    message = Message[Any]("a.b", body, key="k", headers={"tenant": "é"}, priority=7)
    made = make_dead_letter("memory", consumer, Delivery(message, 0.0, 3), KeyError(1))
    return msgspec.structs.replace(made, **fields)


@contextmanager
def durable_broker() -> Iterator[Broker]:
    broker = Broker(DatabaseHarness().make_backend)
    yield broker
    broker.close(60)


def bodies(letters: Sequence[DeadLetter]) -> list[bytes]:
    return [one.message.body for one in letters]


def want(*numbers: int) -> None:
    rows = StoredDeadLetter.objects.using(ALIAS).filter(event_id=None)
    for number in numbers:
        envelope = f'"data":{number}}}'.encode()
        (found,) = (row.pk for row in rows if envelope in bytes(row.envelope))
        rows.filter(pk=found).update(replay_wanted=True)


def test_the_latest_are_listed_where_there_are_more(store: TableStore) -> None:
    store.keep([letter(b"%d" % number) for number in range(5)])

    assert bodies(store.list("memory", 2)) == [b"3", b"4"]


@pytest.fixture
def _small_character_set(vendor: str) -> Iterator[None]:
    if vendor != "mariadb":
        pytest.skip("MariaDB alone may have a character set that lacks some")
    ((collation,),) = execute(
        "SELECT table_collation FROM information_schema.tables "
        "WHERE table_schema = database() AND table_name = 'gomq_dead_letter'"
    )
    change = "ALTER TABLE gomq_dead_letter CONVERT TO CHARACTER SET"
    execute(f"{change} latin1")
    yield
    execute(f"{change} {collation.partition('_')[0]} COLLATE {collation}")


@pytest.mark.usefixtures("_small_character_set")
def test_a_text_that_the_table_has_no_characters_for_is_kept_in_ascii(
    store: TableStore,
) -> None:
    refused = store.keep([letter(error="café 😀 日"), letter(error="no")])

    assert not refused
    assert sorted(kept.error for kept in store.list("memory", 9)) == [
        "caf\\xe9 \\U0001f600 \\u65e5",
        "no",
    ]


@pytest.mark.usefixtures("_small_character_set")
def test_a_delivery_is_settled_whatever_characters_its_error_has() -> None:
    def fail(message: object) -> None:
        raise Reject("card declined 😀")

    with durable_broker() as broker:
        broker.consume("a.b", fail, name="shop.fails")
        broker.setup()
        broker.publish(Message("a.b", b"1"))
        broker.start()
        wait_until(broker.dead_letters)
        (kept,) = broker.dead_letters()
        wait_until(lambda: broker.stats().consumers["shop.fails"].dead_lettered)

    assert "declined \\U0001f600" in kept.error


def test_so_are_texts_that_a_driver_refuses_with_an_operational_error(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    executemany = CursorWrapper.executemany

    def refuse(cursor: CursorWrapper, statement: str, rows: Any) -> Any:
        texts = [value for row in rows for value in row if isinstance(value, str)]
        if not all(map(str.isascii, texts)):
            raise OperationalError(1366, "Incorrect string value")  # as mysqlclient
        return executemany(cursor, statement, rows)

    monkeypatch.setattr(CursorWrapper, "executemany", refuse)
    refused = store.keep([letter(error="😀"), letter(error="no")])

    assert not refused
    errors = {kept.error for kept in store.list("memory", 9)}
    assert errors == {"\\U0001f600", "no"}


def test_a_settlement_goes_on_where_a_driver_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = dead_letters.keep

    def refuse(
        cursor: Any, dialect: Any, event: int, told: DeadLetter, at: Any
    ) -> None:
        if not told.error.isascii():
            raise OperationalError(1366, "Incorrect string value")
        keep(cursor, dialect, event, told, at)

    def fail(message: object) -> None:
        raise Reject("card declined 😀")

    monkeypatch.setattr(dead_letters, "keep", refuse)
    with durable_broker() as broker:
        broker.consume("a.b", fail, name="shop.fails")
        broker.setup()
        broker.publish(Message("a.b", b"1"))
        broker.start()
        wait_until(lambda: broker.stats().consumers["shop.fails"].dead_lettered)
        (kept,) = broker.dead_letters()

    assert "declined \\U0001f600" in kept.error


def test_pages_go_on_behind_one_that_is_gone(store: TableStore) -> None:
    store.keep([letter(b"%d" % number) for number in range(5)])
    first = store.page("memory", "", 2)
    store.take("memory", [one.id for one in first])

    second = store.page("memory", first[-1].id, 2)

    assert bodies([*first, *second]) == [b"0", b"1", b"2", b"3"]
    assert store.page("other", "", 2) == []


def test_what_is_kept_is_found_as_it_was(store: TableStore) -> None:
    kept = letter(b'{"id": 1}')

    assert store.keep([kept]) == []

    (found,) = store.list("memory", 10)
    assert msgspec.structs.replace(found, id="", time=0, first_failed=0) == (
        msgspec.structs.replace(
            kept, id="", message=found.message, time=0, first_failed=0
        )
    )
    assert found.message.id == kept.message.id
    assert found.message.body == kept.message.body
    assert (found.message.key, found.message.priority) == ("k", 7)
    assert dict(found.message.headers) == {"tenant": "é"}
    assert store.list("other", 10) == []


def test_times_are_those_of_the_database_as_far_from_now(store: TableStore) -> None:
    now = time.time()

    store.keep([letter(time=now - 100, first_failed=now - 160)])

    (found,) = store.list("memory", 10)
    assert found.time - found.first_failed == pytest.approx(60, abs=0.1)
    assert time.time() - found.time == pytest.approx(100, abs=50)


def test_what_cannot_be_kept_keeps_no_other_from_it(store: TableStore) -> None:
    good, raw = letter(b"1"), letter(b"\xff raw")

    assert store.keep([raw, good]) == [raw]

    assert bodies(store.list("memory", 10)) == [b"1"]


def test_one_that_the_database_refuses_keeps_no_other_from_it(
    store: TableStore, vendor: str
) -> None:
    wrong = letter(b"2", attempt=2**70)

    assert store.keep([letter(b"1"), wrong, letter(b"3")]) == [wrong]

    assert bodies(store.list("memory", 10)) == [b"1", b"3"]


def test_those_of_a_broker_with_tables_are_not_its_own(store: TableStore) -> None:
    stored = burying.bury(using=ALIAS, broker="memory")
    name = f"{stored.pk:019d}"

    assert store.wanted("memory") is None
    assert store.find("memory", [name]) == []
    assert store.take("memory", [name]) == []
    with durable_broker() as broker:
        assert [one.id for one in broker.dead_letters()] == [name]


def test_those_of_processes_are_not_those_of_the_backend(store: TableStore) -> None:
    store.keep([letter()])
    (kept,) = store.list("memory", 10)

    with durable_broker() as broker:
        assert broker.dead_letters() == []
        assert broker.replay([kept.id]) == 0

    assert [one.id for one in store.list("memory", 10)] == [kept.id]


def test_what_is_wanted_is_taken_by_consumer_oldest_first(store: TableStore) -> None:
    assert store.wanted("memory") is None
    store.keep([letter(b"%d" % nth, "cd"[nth % 2]) for nth in range(6)])
    assert store.wanted("memory") == ()

    want(0, 2, 4, 5)

    assert sorted(store.wanted("memory") or ()) == ["c", "d"]
    assert bodies(store.take_wanted("memory", "c", 2)) == [b"0", b"2"]
    assert bodies(store.take_wanted("memory", "c", 2)) == [b"4"]
    assert store.take_wanted("memory", "c", 2) == []
    assert bodies(store.list("memory", 10)) == [b"1", b"3", b"5"]


def test_the_latest_are_kept_and_what_is_wanted_and_it_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = TableStore(lambda: ALIAS, "tests", most=4)
    stored = burying.bury(using=ALIAS, broker="memory")
    store.keep([letter(b"0"), letter(b"1", broker="other")])
    want(0)

    for first in range(2, 12, 2):
        store.keep([letter(b"%d" % nth) for nth in (first, first + 1)])

    kept = [b"0", b"8", b"9", b"10", b"11"]
    assert bodies(store.list("memory", 100)) == kept
    assert bodies(store.list("other", 100)) == [b"1"]
    assert StoredDeadLetter.objects.using(ALIAS).filter(pk=stored.pk).exists()
    (line,) = [one for one in caplog.records if one.name == "gomq.dead_letters"]
    assert "more than 4 dead letters" in line.getMessage()


def test_each_is_taken_once_by_all_who_try(store: TableStore) -> None:
    store.keep([letter(b"%d" % nth) for nth in range(60)])
    names = [one.id for one in store.list("memory", 100)]
    want(*range(30))
    taken: list[bytes] = []

    def take_wanted(own: TableStore) -> None:
        while found := own.take_wanted("memory", "c", 3):
            taken.extend(bodies(found))

    def take(own: TableStore) -> None:
        for start in range(0, 60, 5):
            taken.extend(bodies(own.take("memory", names[start : start + 5])))

    threads = [
        threading.Thread(target=target, args=(TableStore(lambda: ALIAS, "tests"),))
        for target in (take_wanted, take) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, taken)) == list(range(60))
    assert store.list("memory", 100) == []


def test_a_choice_tells_brokers_apart(store: TableStore) -> None:
    store.keep([letter()])
    stored = burying.bury(using=ALIAS, broker="other")

    found = [list(Choice(broker=name).rows(ALIAS)) for name in ("memory", "other")]

    assert [[row.broker for row in rows] for rows in found] == [["memory"], []]
    assert stored in Choice().rows(ALIAS)


def test_a_database_without_the_table_is_no_store(store: TableStore) -> None:
    execute("ALTER TABLE gomq_dead_letter RENAME TO set_aside")
    try:
        with pytest.raises(NoStoreError):
            store.keep([letter()])
    finally:
        execute("ALTER TABLE set_aside RENAME TO gomq_dead_letter")
    assert store.keep([letter()]) == []


def test_no_connection_is_held_between_two_calls(
    store: TableStore, vendor: str
) -> None:
    store.keep([letter()])
    store.list("memory", 1)

    connection = store._connection
    assert connection is not None
    assert connection._wrapper is None
