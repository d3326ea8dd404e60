"""A publish to Redis is taken, refused or unknown, and never hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import pytest
from cloudevents.core.bindings.http import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from django_gomq.backends.redis import RedisBackend
from django_gomq.backends.redis.server import ServerConnection, UnansweredError
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import (
    BackendUnavailableError,
    ConfigurationError,
    PublishTimeoutError,
    PublishUnknownError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.publish import try_to_send
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.redis_servers import RedisHarness

LIMIT = 45.0
"""Far above every limit that is to hold."""
PATIENT: Final = {"timeout": 60.0, "connect_timeout": 60.0}
"""Limits that are not to hold."""


def emitting(site: Site) -> Process:
    """Have a process that only publishes, for a consumer that runs nowhere."""
    process = site.process(may_start=lambda: False)
    process.broker.consume([EVENT], print, name=CONSUMER)
    process.broker.setup()
    process.send(0)
    return process


@contextmanager
def black_hole() -> Iterator[None]:
    """Let nothing through, while every connection stays open."""
    RedisHarness.proxy.fall_silent()
    try:
        yield
    finally:
        RedisHarness.proxy.speak()


def test_into_a_black_hole_a_publish_is_unknown_and_the_next_refused_at_once(
    redis_site: Site,
) -> None:
    emitting(redis_site)
    harness = redis_site.harness
    assert isinstance(harness, RedisHarness)
    harness.options |= {"timeout": 2.0, "connect_timeout": 1.0}
    process = redis_site.process(may_start=lambda: False)
    wait_until(lambda: not try_to_send(process))
    before = process.broker.stats().queues[EVENT]
    with black_hole():
        began = time.monotonic()
        with pytest.raises(PublishUnknownError):
            process.send(1)
        with pytest.raises(BackendUnavailableError):
            process.send(2)  # nobody answers a new connection
        assert time.monotonic() - began < LIMIT
        calls = len(process.calls.of("publish"))

        for number in range(50):
            with pytest.raises(BackendUnavailableError):
                process.send(number)

        assert len(process.calls.of("publish")) - calls < 25

    queue = process.broker.stats().queues[EVENT]
    assert (queue.published, queue.unknown) == (1, before.unknown + 1)
    assert queue.refused == {"unavailable": before.refused.get("unavailable", 0) + 51}


def test_an_own_timeout_is_that_of_the_publish(redis_site: Site) -> None:
    harness = redis_site.harness
    assert isinstance(harness, RedisHarness)
    harness.options |= PATIENT
    process = emitting(redis_site)
    with black_hole():
        began = time.monotonic()
        with pytest.raises(PublishUnknownError):
            process.broker.publish(Message(EVENT), timeout=0.05)
        assert time.monotonic() - began < LIMIT  # that of the backend


def test_what_follows_a_chunk_without_an_answer_is_not_sent(
    redis_site: Site, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = emitting(redis_site)
    receive, turns = ServerConnection.receive, iter(range(10))
    publishing = threading.current_thread()

    def lose_second(
        connection: ServerConnection, count: int, deadline: float
    ) -> list[Any]:
        answers = receive(connection, count, deadline)
        if threading.current_thread() is publishing and next(turns) == 1:
            connection.close()
            raise UnansweredError("cut", answers[:100])
        return answers

    with monkeypatch.context() as patch:
        patch.setattr(ServerConnection, "receive", lose_second)
        answers = process.broker.publish_many([Message(EVENT)] * 1500)

    assert answers[:600] == [None] * 600
    assert {type(each) for each in answers[600:1000]} == {PublishUnknownError}
    assert {type(each) for each in answers[1000:]} == {BackendUnavailableError}
    assert redis_client.xlen(f"{{gomq}}:e:{EVENT}") == 1001


def test_what_there_is_no_time_for_is_not_sent(
    redis_site: Site, redis_client: Any
) -> None:
    process = emitting(redis_site)
    process.broker.publish(Message(EVENT), timeout=0)  # its answer is waited for

    answers = process.broker.publish_many([Message(EVENT)] * 5000, timeout=0.02)

    taken = answers.count(None)
    assert redis_client.xlen(f"{{gomq}}:e:{EVENT}") >= 2 + taken
    assert taken < 5000
    assert {type(each) for each in answers if each is not None} <= {
        PublishTimeoutError,
        PublishUnknownError,
        BackendUnavailableError,
    }


def test_a_server_without_memory_refuses_and_goes_on_settling(
    redis_site: Site, redis_client: Any
) -> None:
    def fail_once(message: Message[Any]) -> None:
        gate.handle(message)
        if message.data == 0 and message.attempt == 1:
            raise ValueError

    process, gate = redis_site.process(), redis_site.gate()
    again = Retry(attempts=3, min_delay=0.01, max_delay=0.01)
    process.consume(fail_once, concurrency=2, retry=again)
    process.send(0, 1)
    wait_until(lambda: len(gate.entered) == 2)
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(QueueFullError, match="maxmemory"):
            process.send(2)
        gate.open()
        wait_until(lambda: process.stats().succeeded == 1)
        assert process.stats().in_flight == 1  # its retry is kept
    finally:
        redis_client.config_set("maxmemory", 0)

    wait_until(lambda: process.stats().succeeded == 2)
    process.wait_until_quiet()
    assert sorted(gate.handled) == [(0, 1), (0, 2), (1, 1)]


def test_a_stop_ends_within_its_limit_in_a_black_hole(redis_site: Site) -> None:
    harness = redis_site.harness
    assert isinstance(harness, RedisHarness)
    harness.options |= PATIENT
    process, gate = redis_site.process(), redis_site.gate()
    process.consume(gate)
    for number in range(5):
        process.consume(gate, f"suite.t{number}", name=f"suite.more{number}")
    process.send(*range(20))
    for number in range(5):
        process.send(*range(20), type=f"suite.t{number}")
    wait_until(lambda: gate.entered)

    with black_hole():
        began = time.monotonic()
        remainder = process.broker.close(0.1)
        took = time.monotonic() - began

    assert took < LIMIT
    assert remainder.in_flight
    stats = process.broker.stats().consumers.values()
    assert all(each.unaccounted == 0 for each in stats)


def test_a_child_of_a_fork_has_connections_of_its_own(redis_site: Site) -> None:
    process, notes = redis_site.process(may_start=lambda: False), Notes()
    process.consume(notes, starts=False)
    process.send(1)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            process.broker.publish(Message(EVENT, b"2"))
            status = 0
        finally:
            os._exit(status)
    process.send(3)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    process.broker.start()
    wait_until(lambda: sorted(notes.numbers) == [1, 2, 3])


def test_a_connection_that_the_server_ended_while_idle_is_replaced(
    redis_site: Site,
) -> None:
    process = emitting(redis_site)
    RedisHarness.proxy.cut()
    wait_until(lambda: not RedisHarness.proxy.is_connected)

    process.send(1)

    assert process.broker.stats().queues[EVENT].published == 2


def test_a_wrong_password_is_told(redis_site: Site, redis_client: Any) -> None:
    harness = redis_site.harness
    assert isinstance(harness, RedisHarness)
    port = RedisHarness.server.port
    harness.options["url"] = f"redis://nobody:wrong@127.0.0.1:{port}/0"
    process = redis_site.process(may_start=lambda: False)

    with pytest.raises(BackendUnavailableError, match="password"):
        process.send(1)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://here"},
        {"url": 6379},
        {"url": b"redis://:s3cret@here"},
        {"url": "redis://:s3cret/and@here:6379/0"},
        {"url": "redis://:s3cret#and@here"},
        {"url": "redis://:s3cret\u2100@here"},
        {"url": "redis://:s3cret@[::1"},
        {"prefix": "{mine}"},
        {"prefix": ""},
        {"prefix": 5},
        {"prefix": "\ud800"},
        {"timeout": 1e12},
        {"lease": 1e-9},
        {"connection": {"decode_responses": True}},
        {"connection": [("password", "s3cret")]},
        {"connection": {"password": "s3cret", "protocol": 3}},
        {"service": 3},
        {"sentinels": ["a:1"]},
        {"sentinels": [("a", "1")]},
        {"connection": "x"},
        {"connection": {"no such argument": 1}},
        {"timeout": 0},
        {"connect_timeout": None},
        {"lease": "30"},
        {"max_deliveries": 0.5},
        {"history": float("nan")},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_by_their_names(
    options: dict[str, Any],
) -> None:
    (name,) = options

    with pytest.raises(ConfigurationError, match=name) as caught:
        RedisBackend(**{"url": "redis://127.0.0.1", **options})

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("query", ["protocol=3", "socket_timeout=60"])
def test_an_address_sets_nothing_that_answers_are_read_by(query: str) -> None:
    with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
        RedisBackend(url=f"redis://:s3cret@127.0.0.1?{query}")


def test_a_host_that_no_name_can_be_is_a_server_that_is_away() -> None:
    broker = Broker(lambda: RedisBackend(url=f"redis://{'a' * 70}"))

    with pytest.raises(BackendUnavailableError):
        broker.publish(Message(EVENT, b"1"))


def test_spans_of_time_may_be_timedeltas() -> None:
    second = timedelta(seconds=1)

    backend = RedisBackend(
        url="redis://127.0.0.1",
        timeout=second,
        connect_timeout=second,
        lease=second,
        history=second,
    )

    assert backend.capabilities.lease == 1.0


def test_a_bare_client_sends_and_reads_what_the_sdk_of_cloudevents_knows(
    redis_site: Site, redis_client: Any
) -> None:
    process, seen = redis_site.process(), list[Message[Any]]()
    process.consume(seen.append)
    sdk, stream = JSONFormat(), f"{{gomq}}:e:{EVENT}"
    attributes = {
        "specversion": "1.0",
        "id": "of-theirs",
        "type": EVENT,
        "source": "/elsewhere",
        "partitionkey": "k",
        "datacontenttype": "application/json",
    }

    redis_client.xadd(
        stream, {"event": sdk.write(CloudEvent(attributes, {"total": 12}))}
    )
    process.send(7)

    wait_until(lambda: len(seen) == 2)
    first, second = seen
    assert (first.id, first.key, first.data) == ("of-theirs", "k", {"total": 12})
    _, entry = redis_client.xrange(stream)[1]
    read = sdk.read(CloudEvent, entry[b"event"])
    assert (read.get_id(), read.get_type()) == (second.id, EVENT)
    assert str(read.get_data()) == "7"


def test_a_bare_client_sends_events_in_binary_mode(
    redis_site: Site, redis_client: Any
) -> None:
    process, seen, retried = redis_site.process(), list[Message[Any]](), list[int]()

    def handle(message: Message[Any]) -> None:
        retried.append(message.attempt)
        if message.attempt == 1:
            raise RuntimeError("not yet")
        seen.append(message)

    process.consume(handle, retry=Retry(attempts=2, min_delay=0.01))
    attributes = {
        "specversion": "1.0",
        "id": "of-theirs",
        "type": EVENT,
        "source": "/elsewhere",
        "partitionkey": "k",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "datacontenttype": "application/json",
    }
    sent = to_binary(CloudEvent(attributes, {"total": 12}), JSONFormat())

    redis_client.xadd(f"{{gomq}}:e:{EVENT}", {**sent.headers, "data": sent.body})

    wait_until(lambda: bool(seen))
    (message,) = seen
    assert retried == [1, 2]
    assert (message.id, message.key, message.data) == ("of-theirs", "k", {"total": 12})
    assert message.headers["traceparent"] == attributes["traceparent"]


def test_binary_events_that_cannot_be_read_are_dead_letters_that_say_why(
    redis_site: Site, redis_client: Any
) -> None:
    process = redis_site.process()
    process.consume(print)
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/", "ce-type": EVENT}
    stream = f"{{gomq}}:e:{EVENT}"

    redis_client.xadd(stream, {**event, "ce-id": b"\xff", "data": "1"})
    redis_client.xadd(stream, {**event, "data": "no JSON"})
    redis_client.xadd(stream, {**event, "CE-ID": "2", "data": "1"})

    wait_until(lambda: len(process.broker.dead_letters()) == 3)
    first, second, third = process.broker.dead_letters()
    assert "no headers of a CloudEvent" in first.error
    assert "The data is not JSON" in second.error
    assert "The attribute id is there twice" in third.error
    assert b"no JSON" in second.message.body
