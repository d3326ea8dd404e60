"""What waits in an outbox reaches Redis: in order, at least once, by one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from django.db import connections, transaction

from django_gomq import Event
from django_gomq.backends.database.connection import OwnConnection
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.relay import table
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
from tests.backends.outboxes import OutboxHarness
from tests.backends.redis_servers import harness_on
from tests.django_site.programs import ROOT, environment

STREAM: Final = f"{{gomq}}:e:{EVENT}"
FAR: Final = 4e9
"""A moment that no test lives to see."""


class Relayed(OutboxHarness):
    pass


@pytest.fixture(scope="module")
def _redis() -> Iterator[None]:
    with harness_on("redis", Relayed):
        yield


@pytest.fixture
def site(vendor: str, _redis: None) -> Iterator[Site]:
    made = Site(Relayed(), lambda verdict, feature: None)
    yield made
    made.close()


@pytest.fixture
def client(site: Site) -> Iterator[Any]:
    with Relayed.server.client() as made:
        yield made


class Failures(Hook):
    """Notes what failed that goes on."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def failed(self, part: str, error: BaseException) -> None:
        self.texts.append(str(error))

    @property
    def of_relay(self) -> list[str]:
        return [text for text in self.texts if "is not forwarded" in text]


def waiting() -> int:
    return int(execute("SELECT count(*) FROM gomq_relay_event")[0][0])


def leave_lease() -> None:
    """Let whoever has it lose it, as if it had died long ago."""
    execute("UPDATE gomq_relay SET held_until = 0")


def hold_lease() -> None:
    """Have somebody else forward: nobody, until ``leave_lease``."""
    execute(
        "INSERT INTO gomq_relay (id, broker, owner, held_until) "
        "VALUES (%s, 'default', 'somebody', %s)",
        table.id_of("default"),
        FAR,
    )


def letters() -> list[tuple[Any, ...]]:
    return execute(
        "SELECT id, consumer, type, error_type, error FROM gomq_dead_letter ORDER BY id"
    )


def emit(
    process: Process,
    *numbers: int,
    type: str = EVENT,  # noqa: A002 - as in a message
    **options: Any,
) -> None:
    """Publish these in one transaction."""
    messages: list[Message[Any]] = [
        Message(type, b"%d" % number, **options) for number in numbers
    ]
    with transaction.atomic(using=ALIAS):
        process.broker.publish_in_transaction(messages, ALIAS)
    process.broker.count_committed(type, len(messages))


def firsts(numbers: list[int]) -> list[int]:
    """Return them without what came again."""
    return list(dict.fromkeys(numbers))


def test_what_was_emitted_while_the_server_was_away_arrives_in_order(
    site: Site,
) -> None:
    failures, notes = Failures(), Notes()
    process = site.process(hooks=[failures])
    process.consume(notes, concurrency=1)
    emit(process, 0, key="k")
    wait_until(lambda: notes.numbers == [0])
    Relayed.server.kill()

    for number in range(1, 100):
        emit(process, number, key="k")
    wait_until(lambda: failures.of_relay)
    assert waiting() == 99
    assert process.broker.stats().queues[EVENT].published == 100

    Relayed.server.start()
    wait_until(lambda: len(notes.handled) >= 100)
    wait_until(lambda: not waiting())
    assert firsts(notes.numbers) == list(range(100))
    process.broker.hooks.flush(60.0)
    assert len(failures.of_relay) == 1


def test_what_is_rolled_back_is_never_forwarded(site: Site) -> None:
    process, notes = site.process(), Notes()
    process.consume(notes)

    with pytest.raises(ZeroDivisionError), transaction.atomic(using=ALIAS):
        process.broker.publish_in_transaction([Message(EVENT, b"1")], ALIAS)
        1 / 0  # noqa: B018

    process.send(2)  # in a transaction of its own
    wait_until(lambda: notes.numbers == [2])
    wait_until(lambda: not waiting())


def test_thousands_of_events_of_one_transaction_arrive_in_order(
    site: Site, client: Any
) -> None:
    process = site.process(may_start=lambda: False)
    process.consume(Notes(), starts=False)

    emit(process, *range(5000))
    process.broker.start()

    wait_until(lambda: client.xlen(STREAM) == 5000)
    entries = [fields[b"event"] for _, fields in client.xrange(STREAM)]
    numbers = [json.loads(entry)["data"] for entry in entries]
    assert numbers == list(range(5000))
    wait_until(lambda: not waiting())


KILLED: Final = """
import json, sys, time
from django.conf import settings
entry, url = json.loads(sys.argv[1]), sys.argv[2]
if entry["ENGINE"].endswith("mysql"):
    from tests.django_site.mariadb import use_pymysql
    use_pymysql()
settings.configure(DATABASES={"default": entry, "suite": entry})
from django_gomq.backends.database.connection import DIALECTS
from django_gomq.backends.redis import RedisBackend
from django_gomq.bus.broker import Broker
from django_gomq.relay import table
from django_gomq.relay.backend import OutboxBackend

def stand_still(*given):
    print("sent", flush=True)
    time.sleep(600)

table.delete = stand_still
broker = Broker(lambda: OutboxBackend(RedisBackend(url=url), "suite"))
broker.start()
time.sleep(600)
"""


def run_until_sent(url: str) -> None:
    """Forward in another process, and kill it before it says so in the database."""
    database = connections.databases[ALIAS]
    names = ("ENGINE", "NAME", "HOST", "PORT", "USER", "OPTIONS")
    entry = {name: database[name] for name in names if name in database}
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps(entry, default=str), url],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == b"sent\n"
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()


def test_what_a_killed_relay_had_sent_is_sent_again_in_order(
    site: Site, client: Any
) -> None:
    process, notes = site.process(may_start=lambda: False), Notes()
    process.consume(notes, concurrency=1, starts=False)
    for number in range(40):
        emit(process, number, key=f"key {number % 4}")
    harness = site.harness
    assert isinstance(harness, Relayed)

    run_until_sent(harness.options["url"])

    assert (client.xlen(STREAM), waiting()) == (40, 40)
    emit(process, *range(40, 44))
    leave_lease()
    process.broker.start()
    wait_until(lambda: len(notes.handled) == 84)
    assert firsts(notes.numbers) == list(range(44))
    wait_until(lambda: not waiting())


def owner() -> str:
    rows = execute("SELECT owner FROM gomq_relay")
    return str(rows[0][0]) if rows else ""


def test_one_of_two_processes_forwards_until_it_ends(
    site: Site, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may keep a thread from renewing a shorter one.
    monkeypatch.setattr("django_gomq.relay.relay.LEASE", 30.0)
    one, two, notes = site.process(), site.process(), Notes()
    one.consume(notes)
    wait_until(owner)
    first = owner()
    two.consume(notes)

    for number in range(100):
        emit(two if number % 2 else one, number)
    wait_until(lambda: len(notes.handled) == 100)
    assert (owner(), client.xlen(STREAM)) == (first, 100)

    one.close()
    emit(two, 100)
    wait_until(lambda: 100 in notes.numbers)
    assert owner() != first
    assert client.xlen(STREAM) == 101


def test_who_was_held_to_be_dead_stops_forwarding(site: Site, client: Any) -> None:
    process, other = site.process(), site.process()
    process.consume(Notes())
    wait_until(owner)
    first = owner()
    other.consume(Notes())
    relay: Any = process.backend
    relay._relay._leads_until = 0.0  # as after a long standstill

    execute("UPDATE gomq_relay SET owner = 'nobody', held_until = 0")

    wait_until(lambda: owner() not in ("nobody", ""))
    emit(other, *range(20))
    wait_until(lambda: client.xlen(STREAM) == 20)
    wait_until(lambda: not waiting())
    assert client.xlen(STREAM) == 20
    assert first


def test_what_the_server_will_never_take_is_a_dead_letter_and_blocks_nothing(
    site: Site,
) -> None:
    process, notes = site.process(), Notes()
    process.consume(notes)
    emit(process, 1)
    emit(process, 2, type="nobody.listens")
    execute(
        "INSERT INTO gomq_relay_event (relay_id, broker, type, delay, made, envelope) "
        "VALUES (%s, 'default', %s, 0, 0, %s)",
        table.id_of("default"),
        EVENT,
        b"{",
    )

    emit(process, 3)

    wait_until(lambda: sorted(notes.numbers) == [1, 3])
    wait_until(lambda: not waiting())
    assert [row[1:4] for row in letters()] == [
        (table.RELAY, "nobody.listens", "NoConsumerError"),
        (table.RELAY, EVENT, "DecodeError"),
    ]
    assert process.backend.stats().outbox_refused == 2


class Quiet(Event, type="suite.quiet", no_consumer="ignore"):
    number: int = 0


class Wanted(Event, type="suite.wanted", no_consumer="warn"):
    number: int = 0


class Unheard(Hook):
    """Notes of which types nobody was told."""

    def __init__(self) -> None:
        self.types: list[str] = []

    def unconsumed(self, broker: str, event: str) -> None:
        self.types.append(event)


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        (None, ["nobody.listens", "suite.wanted"]),
        ("warn", ["nobody.listens", "suite.wanted"]),
        ("ignore", ["suite.wanted"]),
    ],
)
def test_what_may_go_unheard_is_no_dead_letter(
    site: Site, settings: Any, rule: str | None, refused: list[str]
) -> None:
    settings.GOMQ = {"NO_CONSUMER": rule} if rule else None
    types = ["nobody.listens", "suite.quiet", "suite.wanted"]
    unheard = Unheard()
    process = site.process(hooks=[unheard])
    process.consume(Notes())

    for event_type in types:
        emit(process, 1, type=event_type)
    emit(process, 2, type="suite.quiet", delay=3600.0)

    wait_until(lambda: not waiting())
    assert [row[2] for row in letters()] == refused
    process.broker.hooks.flush(60.0)
    ignored = [name for name in types if name not in refused]
    assert sorted(unheard.types) == sorted([*ignored, "suite.quiet"])


def test_what_was_refused_can_be_replayed_once_somebody_listens(site: Site) -> None:
    process, notes = site.process(), Notes()
    process.consume(Notes())
    emit(process, 1, 2, type="nobody.listens", key="k")
    wait_until(lambda: len(letters()) == 2)
    process.consume(notes, "nobody.listens", name="suite.late", concurrency=1)
    numbers = [row[0] for row in letters()]

    own = OwnConnection(ALIAS, LONG)
    assert own.run(lambda cursor: table.replay(cursor, own.dialect, numbers)) == numbers
    own.close()

    wait_until(lambda: notes.numbers == [1, 2])
    assert letters() == []


def test_the_oldest_of_too_many_refused_are_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = site.process(may_start=lambda: False)
    process.consume(Notes(), starts=False)
    monkeypatch.setattr(table.forget_oldest, "__defaults__", (100,))

    emit(process, *range(800), type="nobody.listens")
    process.broker.start()

    wait_until(lambda: not waiting())
    wait_until(lambda: len(letters()) < 400)
    assert len(letters()) >= 100


def test_a_server_without_memory_gets_everything_later(site: Site, client: Any) -> None:
    process, notes = site.process(), Notes()
    process.consume(notes, concurrency=1)
    emit(process, 0, key="k")
    wait_until(lambda: notes.numbers == [0])
    client.config_set("maxmemory", 1)
    try:
        emit(process, *range(1, 50), key="k")
        wait_until(lambda: process.backend.stats().outbox_depth == 49)
    finally:
        client.config_set("maxmemory", 0)

    wait_until(lambda: len(notes.handled) == 50)
    assert notes.numbers == list(range(50))


def test_a_delay_counts_from_the_emit(site: Site, client: Any) -> None:
    process, notes = site.process(may_start=lambda: False), Notes()
    process.consume(notes, starts=False)
    hold_lease()
    emit(process, 1, delay=3600.0)
    emit(process, 2, delay=30.0)
    execute("UPDATE gomq_relay_event SET made = made - 600")

    leave_lease()
    process.broker.start()

    wait_until(lambda: notes.numbers == [2])  # it was due while it waited
    later = f"{{gomq}}:later:e:{EVENT}"
    wait_until(lambda: client.zcard(later) == 1)
    ((member, due),) = client.zrange(later, 0, -1, withscores=True)
    assert due / 1000 - time.time() == pytest.approx(3000, abs=120)
    assert b'"gomqdelay":"2' in member or b'"gomqdelay":"3000' in member


def test_an_event_arrives_as_its_emitter_wrote_it(site: Site, client: Any) -> None:
    process = site.process(source="shop", may_start=lambda: False)
    process.consume(Notes(), starts=False)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    emit(process, 1, key="ø", headers={"traceparent": trace, "tenant": "nørd"})
    ((written,),) = execute("SELECT envelope FROM gomq_relay_event")
    other = bytes(written).replace(b'"shop"', b'"till"')
    other = other.replace(b'"data":', b'"dataschema":"gomq:suite.happened:7","data":')
    execute("UPDATE gomq_relay_event SET envelope = %s", other)

    process.broker.start()

    wait_until(lambda: client.xlen(STREAM))
    ((_, fields),) = client.xrange(STREAM)
    assert json.loads(fields[b"event"]) == json.loads(other)
    assert json.loads(other)["traceparent"] == trace


def test_a_database_that_is_away_is_told_once_and_forwarded_from_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, notes = Failures(), Notes()
    process = site.process(hooks=[failures])
    process.consume(notes)
    wait_until(owner)
    look, is_away = table.next_events, [True]

    def fail(*given: Any) -> Any:
        if is_away:
            raise ConnectionError("away")
        return look(*given)

    monkeypatch.setattr(table, "next_events", fail)
    emit(process, 1)
    relay: Any = process.backend
    wait_until(lambda: relay._relay._failures > 3)
    is_away.clear()

    wait_until(lambda: notes.numbers == [1])
    process.broker.hooks.flush(60.0)
    assert len(failures.of_relay) == 1


def test_what_the_server_has_and_could_not_be_deleted_is_deleted_later(
    site: Site, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = site.process()
    process.consume(Notes())
    delete, failing = table.delete, [True, True]

    def fail(*given: Any) -> None:
        if failing:
            failing.pop()
            raise ConnectionError("away")
        delete(*given)

    monkeypatch.setattr(table, "delete", fail)
    emit(process, *range(10))

    wait_until(lambda: not waiting())
    assert client.xlen(STREAM) == 10


def test_numbers_of_the_outbox_are_told_while_the_server_is_away(site: Site) -> None:
    process = site.process()
    process.consume(Notes())
    wait_until(owner)
    assert process.backend.stats().is_relayed
    Relayed.server.kill()

    emit(process, 1)
    emit(process, 2, delay=60.0)

    found = process.backend.stats()
    assert (found.outbox_depth, found.outbox_refused) == (2, 0)
    consumer = found.consumers[CONSUMER]
    assert (consumer.ready, consumer.scheduled) == (1, 1)
    assert found.outbox_oldest_age is not None
    Relayed.server.start()
    wait_until(lambda: not waiting())


def test_an_idle_relay_asks_at_most_twice_a_second(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = site.process(may_start=lambda: False)
    process.consume(Notes(), starts=False)
    relay: Any = process.backend
    connection, asked = relay._relay._connection, list[str]()
    make = connection._make

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return execute(sql, *rest)

    def make_counted() -> Any:
        wrapper = make()
        wrapper.execute_wrappers.append(note)
        return wrapper

    def looks() -> int:
        return sum("ORDER BY id" in sql for sql in asked)

    monkeypatch.setattr(connection, "_make", make_counted)
    process.broker.start()
    wait_until(lambda: looks() >= 6)  # the pauses have grown
    asked.clear()
    began = time.monotonic()

    wait_until(lambda: looks() >= 8)

    assert len(asked) <= 2 * (time.monotonic() - began) + 2, asked


def test_a_child_of_a_fork_emits_by_connections_of_its_own(site: Site) -> None:
    parent, notes = os.getpid(), Notes()
    process = site.process(may_start=lambda: os.getpid() == parent)
    process.consume(notes)
    emit(process, 1)
    wait_until(lambda: notes.numbers == [1])
    connections[ALIAS].close()

    child = os.fork()
    if child == 0:
        status = 1
        try:
            process.broker.publish(Message(EVENT, b"2"))
            status = 0
        finally:
            os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wait_until(lambda: set(notes.numbers) == {1, 2})
