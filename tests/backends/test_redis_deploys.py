"""Two versions of a site run on one Redis: each leaves the other's events alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from django_gomq import Event, Message
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.event import EventMeta
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.site import Notes, Process, Site, wait_until

NAME = "shop.ledger"
LATER = f"{{gomq}}:later:r:{NAME}"


def event(version: int, name: str = "deploy.paid") -> EventMeta:
    """Define the class of an event, as the code of that version has it."""
    fields: dict[str, Any] = {"__annotations__": {"number": int}, "number": 0}
    if version > 1:
        fields["__annotations__"]["currency"] = str
        fields["currency"] = "EUR"
    return EventMeta("Paid", (Event,), fields, type=name, version=version)


def run(site: Site, handler: Any, *types: Any, **options: Any) -> Process:
    process = site.process()
    process.broker.consume(list(types), handler, name=NAME, **options)
    process.broker.setup()
    process.broker.start()
    return process


def send(process: Process, event_type: str = "deploy.paid", **options: Any) -> None:
    body = b'{"number":1,"currency":"SEK"}'
    process.broker.publish(Message(event_type, body, **options))


def test_a_newer_version_waits_for_the_code_that_has_it(
    redis_site: Site, redis_client: Any
) -> None:
    old, new = event(1), event(2)
    waiting, read = Notes(), Notes()
    process = run(redis_site, waiting, old)

    send(process)  # by the latest class: version 2

    wait_until(lambda: redis_client.zcard(LATER))
    process.wait_until_quiet()
    process.close()
    run(redis_site, read, new)
    wait_until(lambda: [each for each, _ in read.handled])
    assert waiting.handled == []
    assert [attempt for _, attempt in read.handled] == [1]


def test_a_retry_of_a_type_that_this_code_does_not_name_waits(
    redis_site: Site, redis_client: Any
) -> None:
    def fail(message: Message[Any]) -> None:
        newer.broker.pause(NAME)
        raise ValueError

    types = ("deploy.paid", "deploy.refunded")
    again = Retry(attempts=3, min_delay=0.01, max_delay=0.01)
    newer = run(redis_site, fail, *types, retry=again)
    send(newer, "deploy.refunded")
    wait_until(lambda: failed(newer))
    newer.close()
    old, waiting, read = redis_site.process(), Notes(), Notes()
    old.broker.consume(["deploy.paid"], waiting, name=NAME)

    old.broker.start()

    wait_until(lambda: redis_client.zcard(LATER))
    old.close()
    run(redis_site, read, *types)
    wait_until(lambda: [attempt for _, attempt in read.handled] == [2])
    assert waiting.handled == []


def failed(process: Process) -> int:
    return process.stats(NAME).retries


@pytest.mark.parametrize(("options", "age"), [({}, 90_000), ({"max_age": 30}, 60)])
def test_what_nobody_knows_for_its_time_is_a_dead_letter(
    redis_site: Site, options: dict[str, Any], age: int
) -> None:
    old, _ = event(1), event(2)
    read = Notes()
    process = run(redis_site, read, old, **options)

    send(process, made=time.time() - age)

    wait_until(process.broker.dead_letters)
    [letter] = process.broker.dead_letters()
    assert letter.error_type == DecodeError.__name__
    assert "version 2, and the Event class has version 1" in letter.error
    assert letter.message.type == "deploy.paid"
    assert read.handled == []


DROPPED = "deploy.dropped"
DELAYED = f"{{gomq}}:later:e:{DROPPED}"


def declare(site: Site, handler: Any, *types: str, name: str = NAME) -> Process:
    """Set a consumer up; it does not run."""
    process = site.process(may_start=lambda: False)
    process.consume(handler, *types, name=name, starts=False)
    return process


def make_due(client: Any) -> None:
    for member in client.zrange(DELAYED, 0, -1):
        client.zadd(DELAYED, {member: 0})


def test_what_is_delayed_of_a_dropped_type_waits_for_the_code_that_reads_it(
    redis_site: Site, redis_client: Any
) -> None:
    notes = Notes()
    old = declare(redis_site, notes, "deploy.*")
    old.send(1, type=DROPPED, delay=3600.0)

    new = declare(redis_site, Notes(), "deploy.kept")

    (told,) = [line for line in new.broker.setup() if "does not read" in line]
    assert DROPPED in told
    assert new.backend.stats().consumers[NAME].scheduled == 1
    make_due(redis_client)
    old.broker.start()
    wait_until(lambda: notes.numbers == [1])
    old.close()
    assert not [line for line in new.broker.setup() if "does not read" in line]
    assert not redis_client.exists(DELAYED, f"{{gomq}}:e:{DROPPED}")


def test_what_is_delayed_goes_to_who_still_reads_a_type_that_another_dropped(
    redis_site: Site, redis_client: Any
) -> None:
    notes, name = Notes(), "shop.other"
    other = declare(redis_site, notes, DROPPED, name=name)
    declare(redis_site, Notes(), DROPPED, "deploy.kept")
    other.send(1, type=DROPPED, delay=3600.0)

    new = declare(redis_site, Notes(), "deploy.kept")

    assert not [line for line in new.broker.setup() if "does not read" in line]
    make_due(redis_client)
    other.broker.start()
    wait_until(lambda: notes.numbers == [1])
