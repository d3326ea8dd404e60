"""Two versions of a site run on one database: each leaves the other's events alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import OperationalError

from django_gomq import Event, Message
from django_gomq.backends.database import settling
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.event import EventMeta
from django_gomq.testing.conformance.site import Process, Site, wait_until
from tests.backends.databases import execute

NAME = "shop.ledger"


def event(version: int, name: str = "deploy.paid") -> EventMeta:
    """Define the class of an event, as the code of that version has it."""
    fields: dict[str, Any] = {"__annotations__": {"number": int}, "number": 0}
    if version > 1:
        fields["__annotations__"]["currency"] = str
        fields["currency"] = "EUR"
    return EventMeta("Paid", (Event,), fields, type=name, version=version)


class Read:
    """Notes the numbers of events."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, message: Message[Any]) -> None:
        data = message.data
        number = data["number"] if isinstance(data, dict) else data.number
        self.numbers.append(number)


def run(site: Site, read: Read, *types: Any, **options: Any) -> Process:
    process = site.process()
    process.broker.consume(list(types), read, name=NAME, **options)
    process.broker.setup()
    process.broker.start()
    return process


def send(process: Process, number: int, event_type: str = "deploy.paid") -> None:
    body = b'{"number":%d,"currency":"SEK"}' % number
    process.broker.publish(Message(event_type, body))


def put_off() -> bool:
    return bool(execute("SELECT 1 FROM gomq_delivery WHERE state = 2"))


def bring_forward() -> None:
    execute("UPDATE gomq_delivery SET due = 0 WHERE state = 2")


def test_a_newer_version_waits_for_the_code_that_has_it(processes: Site) -> None:
    old, new = event(1), event(2)
    waiting, read = Read(), Read()
    process = run(processes, waiting, old)

    send(process, 1)  # by the latest class: version 2

    wait_until(put_off)
    assert waiting.numbers == []
    process.wait_until_quiet()
    process.close()
    run(processes, read, new)
    bring_forward()
    wait_until(lambda: read.numbers == [1])


def test_what_was_claimed_and_could_not_be_set_aside_is_freed(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside, failed = settling.put_off, list[object]()

    def fail_once(cursor: Any, dialect: Any, rows: Any) -> None:
        if not failed:
            failed.append(rows)
            raise OperationalError("the server closed the connection unexpectedly")
        set_aside(cursor, dialect, rows)

    monkeypatch.setattr(settling, "put_off", fail_once)
    old, _ = event(1), event(2)
    read = Read()
    process = run(processes, read, old, "deploy.refunded")

    send(process, 1)  # by the latest class: version 2
    wait_until(lambda: failed)
    send(process, 2, "deploy.refunded")

    wait_until(lambda: read.numbers == [2])
    wait_until(put_off)


def test_a_type_that_this_code_does_not_name_waits(processes: Site) -> None:
    waiting, read = Read(), Read()
    process = run(processes, waiting, "deploy.paid")
    newer = processes.process(may_start=lambda: False)
    newer.broker.consume(["deploy.paid", "deploy.refunded"], read, name=NAME)
    newer.broker.setup()

    send(process, 1, "deploy.refunded")
    send(process, 2)

    wait_until(put_off)
    wait_until(lambda: waiting.numbers == [2])
    process.close()
    newer.broker.start()
    bring_forward()
    wait_until(lambda: read.numbers == [1])


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_version_and_added_fields_are_read(
    processes: Site, version: int
) -> None:
    read = Read()
    process = run(processes, read, event(version))
    event(1)  # the sender's

    send(process, 1)  # with a field that version 1 does not have

    wait_until(lambda: read.numbers == [1])


def test_plain_data_have_no_version(processes: Site) -> None:
    event(3)
    read = Read()

    send(run(processes, read, "deploy.*"), 1)

    wait_until(lambda: read.numbers == [1])


@pytest.mark.parametrize(("options", "age"), [({}, 90_000), ({"max_age": 30}, 60)])
def test_what_nobody_knows_for_its_time_is_a_dead_letter(
    processes: Site, options: dict[str, Any], age: int
) -> None:
    old, _ = event(1), event(2)
    read = Read()
    process = run(processes, read, old, **options)
    other = processes.process(may_start=lambda: False)
    made = time.time() - age

    message = Message[Any]("deploy.paid", b'{"number":1}', made=made)
    other.broker.publish(message)

    wait_until(process.broker.dead_letters)
    [letter] = process.broker.dead_letters()
    assert letter.error_type == DecodeError.__name__
    assert "version 2, and the Event class has version 1" in letter.error
    assert (letter.message.type, letter.message.id) == (message.type, message.id)
    ((kept,),) = execute("SELECT message_id FROM gomq_dead_letter")
    assert kept == message.id
    assert read.numbers == []
    assert not execute("SELECT 1 FROM gomq_delivery")


def test_a_key_waits_with_its_first_event(processes: Site) -> None:
    old, new = event(1), event(2)
    waiting, read = Read(), Read()
    process = run(processes, waiting, old, ordered_by_key=True)
    for number in (1, 2, 3):
        body = b'{"number":%d}' % number
        process.broker.publish(Message("deploy.paid", body, key="one"))

    wait_until(put_off)
    process.close()
    run(processes, read, new, ordered_by_key=True)

    wait_until(lambda: (bring_forward(), len(read.numbers) == 3)[1])
    assert read.numbers == [1, 2, 3]
    assert waiting.numbers == []
