"""Events that stood in an outbox go to Redis in order, as their emitters wrote them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from django_gomq.bus.errors import (
    BackendUnavailableError,
    NoConsumerError,
    PublishUnknownError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.wire import WireMessage, decode_structured, encode_structured
from django_gomq.testing.conformance.site import (
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.fakes.lease import LeaseHarness

OTHER: Final = "suite.other"
STREAM: Final = f"{{gomq}}:e:{EVENT}"


def read(*types: str, source: str = "shop", **options: Any) -> Sequence[WireMessage]:
    """Return an event of each type, numbered, as it was read from an outbox."""
    written = [
        encode_structured(
            Message(event, b"%d" % number, key="k", **options), source=source, version=7
        )
        for number, event in enumerate(types)
    ]
    return [decode_structured(each, max_body_bytes=1000) for each in written]


def listening(site: Site) -> Process:
    process = site.process(may_start=lambda: False)
    process.consume(Notes(), EVENT, OTHER, "many.*", starts=False)
    return process


def numbers(client: Any, event: str = EVENT) -> list[int]:
    entries = client.xrange(f"{{gomq}}:e:{event}")
    return [json.loads(fields[b"event"])["data"] for _, fields in entries]


def test_events_keep_their_order_source_and_version(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)

    answers = process.backend.forward(read(*[EVENT] * 100), 5.0)

    assert answers == [None] * 100
    assert numbers(redis_client) == list(range(100))
    ((_, fields),) = redis_client.xrange(STREAM, count=1)
    event = json.loads(fields[b"event"])
    assert event["source"] == "shop"
    assert event["dataschema"] == f"gomq:{EVENT}:7"


def test_what_nobody_consumes_keeps_nothing_else_back(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)

    answers = process.backend.forward(read(EVENT, "nobody.listens", EVENT), 5.0)

    assert answers[::2] == [None, None]
    assert isinstance(answers[1], NoConsumerError)
    assert numbers(redis_client) == [0, 2]


def test_the_first_of_a_type_that_a_pattern_matches_is_not_overtaken(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)

    answers = process.backend.forward(read("many.a", EVENT, "many.a"), 5.0)

    assert answers == [None] * 3
    assert numbers(redis_client, "many.a") == [0, 2]


def test_nothing_is_taken_behind_what_is_not(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)
    process.backend.forward(read(EVENT, OTHER), 5.0)
    redis_client.delete(f"{{gomq}}:e:{OTHER}")
    redis_client.set(f"{{gomq}}:e:{OTHER}", "of somebody else")

    answers = process.backend.forward(read(EVENT, OTHER, EVENT), 5.0)

    assert answers[0] is None
    assert [type(each) for each in answers[1:]] == [BackendUnavailableError] * 2
    assert numbers(redis_client) == [0, 0]


def test_nothing_overtakes_what_lost_its_stream(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)
    process.backend.forward(read(EVENT, OTHER), 5.0)
    redis_client.delete(f"{{gomq}}:e:{OTHER}")

    answers = process.backend.forward(read(EVENT, OTHER, EVENT), 5.0)
    again = process.backend.forward(read(OTHER, EVENT), 5.0)

    assert answers[0] is None
    assert [type(each) for each in answers[1:]] == [BackendUnavailableError] * 2
    assert again == [None, None]
    assert numbers(redis_client) == [0, 0, 1]


def test_a_server_that_lost_its_data_refuses_nothing_for_good(
    redis_site: Site, redis_client: Any
) -> None:
    process, fresh = listening(redis_site), listening(redis_site)
    process.backend.forward(read(EVENT, OTHER), 5.0)
    redis_client.flushall()

    answers = [
        answer
        for backend in (process.backend, process.backend, fresh.backend)
        for answer in backend.forward(read(EVENT, OTHER), 5.0)
    ]
    one = redis_site.process(may_start=lambda: False)
    one.consume(Notes(), EVENT, name="suite.one", starts=False)
    later = [process.backend.forward(read(OTHER), 5.0) for _ in range(2)]
    process.broker.setup()
    at_last = process.backend.forward(read(EVENT, OTHER), 5.0)

    assert {type(each) for each in answers} == {BackendUnavailableError}
    # Who consumes it is not known again yet.
    assert {type(answer) for (answer,) in later} == {BackendUnavailableError}
    assert at_last == [None, None]


def test_a_server_without_memory_takes_none(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)
    process.backend.forward(read(EVENT), 5.0)
    redis_client.config_set("maxmemory", 1)
    try:
        answers = process.backend.forward(read(EVENT, EVENT), 5.0)
    finally:
        redis_client.config_set("maxmemory", 0)

    assert isinstance(answers[0], QueueFullError)
    assert isinstance(answers[1], BackendUnavailableError)


def test_delayed_ones_go_to_those_that_are_due_later(
    redis_site: Site, redis_client: Any
) -> None:
    process = listening(redis_site)
    late, soon = read(EVENT, delay=60.0), read(EVENT)

    assert process.backend.forward([*late, *soon, *late], 5.0) == [None] * 3

    assert redis_client.xlen(STREAM) == 1
    assert redis_client.zcard(f"{{gomq}}:later:e:{EVENT}") == 2


def test_a_server_that_does_not_answer_leaves_all_unknown(redis_site: Site) -> None:
    process = listening(redis_site)
    process.backend.forward(read(EVENT, OTHER), 5.0)

    with redis_site.harness.lose_answers():
        answers = process.backend.forward(read(EVENT, OTHER), 0.3)

    assert [type(each) for each in answers] == [PublishUnknownError] * 2


def test_a_server_that_is_away_is_told(redis_site: Site) -> None:
    process = listening(redis_site)
    redis_site.harness.stop_server()

    answers = process.backend.forward(read(EVENT), 1.0)

    assert [type(each) for each in answers] == [BackendUnavailableError]


def test_a_backend_that_does_not_say_otherwise_publishes_them() -> None:
    site, notes = Site(LeaseHarness(), lambda verdict, feature: None), Notes()
    process = site.process()
    process.consume(notes)

    assert process.backend.forward(read(EVENT), 5.0) == [None]

    wait_until(lambda: notes.numbers == [0])
    site.close()
