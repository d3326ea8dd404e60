"""The tables of sampled messages, on every database: bounded, filtered, read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from django.db import connections

from django_gomq import models
from django_gomq.operations import table, tail, viewing
from django_gomq.operations.moments import Holds
from django_gomq.operations.samples import (
    MAX_FILTERS,
    RING,
    MessageFilter,
    Sample,
    ShownMessage,
)
from django_gomq.operations.table import ProcessTables
from django_gomq.operations.tail import SHOWN_SECONDS, Tail
from tests.backends.databases import ALIAS, execute
from tests.backends.vendors import VENDORS
from tests.django_site.waiting import SECONDS

OURS: Final = (
    *(models.Consumer, models.SiteProcess, models.Tick, models.Watch),
    *(models.MessageWatch, models.SampledMessage),
)


@pytest.fixture(scope="module", params=VENDORS)
def _served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("messages")
    with django_db_blocker.unblock(), VENDORS[request.param](folder):
        with connections[ALIAS].schema_editor() as editor:
            for model in OURS:
                editor.create_model(model)
        yield


@pytest.fixture
def _tables(
    _served: None, django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    # On a busy machine a few statements take longer than those who look have.
    monkeypatch.setattr(table, "ANSWER_SECONDS", SECONDS)
    for module in (tail, viewing):
        monkeypatch.setattr(module, "WATCH_SECONDS", 10 * SECONDS)
    with django_db_blocker.unblock():
        yield
        for model in OURS:
            execute(f"DELETE FROM {model._meta.db_table}")
        connections[ALIAS].close()


@pytest.fixture
def process(_tables: None) -> Iterator[ProcessTables]:
    with told("one") as found:
        yield found


class told:  # noqa: N801 - reads as a function
    """A process that has told what it does."""

    def __init__(self, owner: str) -> None:
        self._tables = ProcessTables(ALIAS, owner, "web")

    def __enter__(self) -> ProcessTables:
        assert self._tables.are_there()
        self._tables.tell(Holds(), [])
        return self._tables

    def __exit__(self, *_: object) -> None:
        self._tables.rest()


def sample(number: int, event: str = "lab.asked", consumer: str = "lab") -> Sample:
    return Sample(
        ended=float(number),
        broker="default",
        event=event,
        consumer=consumer,
        outcome="ack",
        wait=0.1,
        duration=0.2,
        message=f"{number:036d}",
        host="häuser-\N{OGHAM LETTER BEITH}",
        pid=7,
    )


def numbers(found: Any) -> list[int]:
    return [int(one.sample.ended) for one in found]


def count(name: str = "gomq_message_sample") -> int:
    return int(execute(f"SELECT count(*) FROM {name}")[0][0])


def test_a_process_learns_what_somebody_looks_for(process: ProcessTables) -> None:
    assert process.look().messages == ()

    Tail(ALIAS).watch(MessageFilter("lab.*", "lab"))
    Tail(ALIAS).watch(MessageFilter("lab.*", "lab"))
    Tail(ALIAS).watch(MessageFilter(payload=True))

    look = process.look()
    assert look.messages == (
        MessageFilter(payload=True),
        MessageFilter("lab.*", "lab"),
    )
    assert look.is_watched
    assert count("gomq_message_watch") == 2


def test_who_looks_no_more_is_forgotten(process: ProcessTables) -> None:
    Tail(ALIAS).watch(MessageFilter("lab.*"))
    execute("UPDATE gomq_message_watch SET until = 0")

    assert process.look().messages == ()
    Tail(ALIAS).watch(MessageFilter())

    assert count("gomq_message_watch") == 1


def test_too_many_who_look_for_different_things_look_at_all(
    process: ProcessTables,
) -> None:
    for number in range(MAX_FILTERS + 5):
        Tail(ALIAS).watch(MessageFilter(f"lab.event_{number}"))

    found = process.look().messages
    assert len(found) == MAX_FILTERS + 1
    assert MessageFilter() in found


def test_what_is_told_is_a_ring_of_each_process(process: ProcessTables) -> None:
    with told("two") as other:
        other.tell_messages([(sample(1), None)])
        for start in range(0, 3 * RING, 10):
            told_now = [(sample(start + number), None) for number in range(10)]
            process.tell_messages(told_now)

    newest = Tail(ALIAS).newest(MessageFilter(), most=2 * RING)
    assert count() == RING + 1
    assert numbers(newest) == [*range(3 * RING - 1, 2 * RING - 1, -1), 1]
    assert newest[0].sample == sample(3 * RING - 1)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (MessageFilter(), [5, 4, 3, 2, 1]),
        (MessageFilter("lab.asked"), [2, 1]),
        (MessageFilter("lab.*"), [3, 2, 1]),
        (MessageFilter(consumer="audit"), [5, 2]),
        (MessageFilter("lab.*", "audit"), [2]),
        (MessageFilter("health.*"), []),
    ],
)
def test_those_are_read_that_match(
    process: ProcessTables, wanted: MessageFilter, found: list[int]
) -> None:
    told_now = [
        sample(1),
        sample(2, consumer="audit"),
        sample(3, "lab.ready"),
        sample(4, "lab"),
        sample(5, "labxasked", "audit"),
    ]
    process.tell_messages([(one, None) for one in told_now])

    assert numbers(Tail(ALIAS).newest(wanted, most=10)) == found


def test_data_are_read_by_whom_asks_for_them(process: ProcessTables) -> None:
    text = '{\n  "name": "\N{GREEK SMALL LETTER PI} \N{GRINNING FACE}"\n}'
    process.tell_messages([(sample(1), text), (sample(2), None)])

    def payloads(wanted: MessageFilter) -> list[str | None]:
        return [one.payload for one in Tail(ALIAS).newest(wanted, most=10)]

    assert payloads(MessageFilter(payload=True)) == [None, text]
    assert payloads(MessageFilter()) == [None, None]


def test_each_is_told_once_to_who_follows(process: ProcessTables) -> None:
    process.tell_messages([(sample(1), None)])
    looking, wanted = Tail(ALIAS), MessageFilter()
    seen: list[ShownMessage] = list(looking.next(wanted))

    process.tell_messages([(sample(3), None), (sample(2), None)])
    seen += looking.next(wanted)
    seen += looking.next(wanted)
    process.tell_messages([(sample(4), None)])
    seen += looking.next(wanted)

    assert numbers(seen) == [2, 3, 4]


def test_a_process_deletes_what_is_its_own(process: ProcessTables) -> None:
    with told("two") as other:
        other.tell_messages([(sample(1), None)])
        process.tell_messages([(sample(2), None)])
        other.forget_messages()

    assert numbers(Tail(ALIAS).newest(MessageFilter(), most=10)) == [2]


def test_what_killed_processes_left_is_deleted_by_who_looks(
    process: ProcessTables,
) -> None:
    process.tell_messages([(sample(1), "secret")])
    execute("UPDATE gomq_message_sample SET written = written - %s", SHOWN_SECONDS + 1)
    assert Tail(ALIAS).newest(MessageFilter(), most=10) == []

    Tail(ALIAS).watch(MessageFilter())

    assert count() == 0


@pytest.mark.usefixtures("_tables")
def test_nothing_is_written_before_a_process_has_a_slot() -> None:
    tables = ProcessTables(ALIAS, "early", "web")
    assert tables.are_there()

    tables.tell_messages([(sample(1), None)])
    tables.forget_messages()
    tables.rest()

    assert count() == 0


@pytest.mark.usefixtures("_tables")
def test_without_the_tables_of_messages_the_rest_goes_on() -> None:
    with connections[ALIAS].schema_editor() as editor:
        editor.delete_model(models.MessageWatch)
    try:
        with told("old") as old:
            assert old.look().messages == ()
    finally:
        connections[ALIAS].close()
        with connections[ALIAS].schema_editor() as editor:
            editor.create_model(models.MessageWatch)
