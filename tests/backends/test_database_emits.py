"""What the database backend sends to write events: few statements, and whole ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_gomq import Message, models
from django_gomq.backends.database import DatabaseBackend
from django_gomq.bus.backend import Want
from django_gomq.bus.broker import Broker
from django_gomq.bus.wire import decode_structured
from tests.backends.databases import ALIAS, TABLES, database
from tests.django_site import mariadb, postgres

Serve = Callable[[], AbstractContextManager[dict[str, Any]]]
SERVERS: dict[str, Serve] = {"postgresql": postgres.serving, "mysql": mariadb.serving}


@pytest.fixture(scope="module", params=["sqlite3", "postgresql", "mysql"])
def _served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    engine = f"django.db.backends.{request.param}"
    if request.param == "sqlite3":
        path: Path = tmp_path_factory.mktemp("database") / "emits.sqlite3"
        with database({"ENGINE": engine, "NAME": path}):
            yield
    else:
        with (
            SERVERS[request.param]() as address,
            database({"ENGINE": engine} | address),
        ):
            yield


@pytest.fixture
def broker(queries_allowed: None, _served: None) -> Iterator[Broker]:
    broker = Broker(lambda: DatabaseBackend(using=ALIAS), may_start=lambda: False)
    yield broker
    broker.close(timeout=0)
    for model in TABLES:
        model._base_manager.using(ALIAS).all().delete()


def written() -> list[models.OutboxEvent]:
    return list(models.OutboxEvent.objects.using(ALIAS).order_by("id"))


def envelope_of(row: models.OutboxEvent) -> Message[Any]:
    return decode_structured(bytes(row.envelope), max_body_bytes=2**30).message


@pytest.mark.parametrize("count", [1, 256])
def test_outside_a_transaction_an_emit_is_one_statement_and_no_more(
    broker: Broker, count: int
) -> None:
    messages = [Message[Any]("a.b")] * count

    with CaptureQueriesContext(connections[ALIAS]) as queries:
        assert broker.publish_many(messages) == [None] * count

    (only,) = [query["sql"] for query in queries]
    assert only.startswith("INSERT INTO gomq_outbox")
    assert len(written()) == count


def test_what_takes_several_statements_is_written_whole_or_not_at_all(
    broker: Broker,
) -> None:
    def fail_the_second(execute: Any, sql: str, *rest: Any) -> Any:
        if written_so_far():
            raise DatabaseError("the second statement fails")
        return execute(sql, *rest)

    def written_so_far() -> int:
        return sum("INSERT" in query["sql"] for query in queries.captured_queries)

    queries = CaptureQueriesContext(connections[ALIAS])
    with queries, connections[ALIAS].execute_wrapper(fail_the_second):
        answers = broker.publish_many([Message[Any]("a.b")] * 257)

    assert None not in answers
    assert written() == []


def test_events_of_many_megabytes_are_parted_and_stay_in_their_order(
    broker: Broker,
) -> None:
    large = [b'"%s"' % (letter * 260_000) for letter in (b"a", b"b", b"c") * 3]
    sent = [*large, *(b"%d" % number for number in range(150))]

    broker.publish_many([Message("a.b", body) for body in sent])

    assert [envelope_of(row).body for row in written()] == sent


def test_what_is_written_alone_or_among_many_is_the_same(broker: Broker) -> None:
    sent = [
        Message[Any]("null"),
        Message[Any]("a.b", key="one"),
        Message[Any]("a.c", delay=2.5),
    ]

    broker.publish_many(sent)
    with transaction.atomic(using=ALIAS):
        for message in sent:
            broker.publish_in_transaction([message], ALIAS)

    rows = written()
    assert [row.type for row in rows] == ["null", "a.b", "a.c"] * 2
    assert [row.delay for row in rows] == [0.0, 0.0, 2.5] * 2
    assert [row.key_hash is None for row in rows] == [True, False, True] * 2
    assert {row.precedence for row in rows} == {rows[0].precedence}
    assert [envelope_of(row).id for row in rows] == [each.id for each in sent] * 2


def test_what_is_due_is_found_while_this_process_goes_on_publishing(
    broker: Broker,
) -> None:
    broker.consume(["a.*"], lambda message: None, name="one")
    broker.setup()
    backend = broker._current_runtime().backend
    wants = [Want(broker.consumers[0], 10, frozenset())]

    def publish_and_fetch(message: Message[Any]) -> list[str]:
        broker.publish(message)
        found = backend.fetch(wants)
        return [each.message.type for one in found for each in one.deliveries]

    publish_and_fetch(Message("a.late", delay=60.0))
    assert not backend.fetch(wants)
    models.DueDelivery.objects.using(ALIAS).update(due=0.0)
    first = publish_and_fetch(Message("a.now"))
    second = publish_and_fetch(Message("a.now"))

    assert (first, second) == (["a.now"], ["a.late", "a.now"])


def test_no_message_is_no_statement(broker: Broker) -> None:
    with CaptureQueriesContext(connections[ALIAS]) as queries:
        assert broker.publish_many([]) == []

    assert all("INSERT" not in query["sql"] for query in queries)
