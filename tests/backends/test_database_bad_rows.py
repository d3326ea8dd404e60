"""Rows that nobody could have emitted: each ends as it should, and stops no worker."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    Notes,
    Site,
    wait_until,
)
from tests.backends.databases import execute


def put(envelope: bytes, **columns: Any) -> None:
    """Write a row into the outbox, past the backend."""
    values = {"type": EVENT, "precedence": 4, "key_hash": None, "delay": 0.0}
    values |= {"made": time.time(), "envelope": envelope, **columns}
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    execute(f"INSERT INTO gomq_outbox ({names}) VALUES ({marks})", *values.values())


def envelope(**attributes: Any) -> bytes:
    """Return a CloudEvent, as it ought to be but for these."""
    values = {
        "specversion": "1.0",
        "id": f"id-{time.monotonic_ns()}",
        "source": "tests",
        "type": EVENT,
        "datacontenttype": "application/json",
        "data": 1,
        **attributes,
    }
    return json.dumps(values).encode()


UNREADABLE = {
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "no JSON": b"{half",
    "a number": b"7",
    "a list": b"[]",
    "no event": b'{"a": 1}',
    "nested without end": b'{"data":' + b"[" * 200_000,
    "a type of 10 KB": envelope(type=f"a.{'b' * 10_000}"),
    "an id of 10 KB": envelope(id="i" * 10_000),
    "a key of 10 KB": envelope(partitionkey="k" * 10_000),
    "headers of 1 MB": envelope(gomqheaders=json.dumps({"a": "b" * 1_000_000})),
    "a priority of 99": envelope(gomqpriority=99),
    "a version of another specification": envelope(specversion="2.0"),
    "a number for a key": envelope(partitionkey=5),
    "NUL in a name": envelope(type="a\0b"),
    "half a character": b'{"specversion":"1.0","id":"1","source":"s","type":"a.b",'
    b'"partitionkey":"\\ud800","data":1}',
}


@pytest.mark.parametrize("ordered", [False, True])
def test_what_is_no_envelope_is_a_dead_letter(processes: Site, ordered: bool) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes, ordered_by_key=ordered)

    for raw in UNREADABLE.values():
        put(raw, key_hash=7)
    process.send(1)

    wait_until(lambda: 1 in notes.numbers)
    wait_until(lambda: len(process.broker.dead_letters()) == len(UNREADABLE))
    kept = {letter.message.body for letter in process.broker.dead_letters()}
    assert kept == set(UNREADABLE.values())
    assert notes.numbers == [1]


ODD = {
    "no precedence that there is": {"precedence": 32_767},
    "a precedence below all": {"precedence": -5},
    "made in 1970": {"made": 0.0},
    "made in the far future": {"made": 1e11},
    "a delay below nothing": {"delay": -1e9},
    "another key than the envelope says": {"key_hash": 2**62},
}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("columns", ODD.values(), ids=list(ODD))
def test_what_can_be_read_is_handled_whatever_its_columns_say(
    processes: Site, columns: dict[str, Any], ordered: bool
) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes, ordered_by_key=ordered)

    put(envelope(data=7), **columns)
    process.send(1)

    wait_until(lambda: sorted(notes.numbers) == [1, 7])


def test_a_body_of_5_mb_is_handled(processes: Site) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)

    put(envelope(data="x" * 5_000_000))
    process.send(1)

    wait_until(lambda: len(notes.numbers) == 2)
    assert {1, "x" * 5_000_000} == set(notes.numbers)


def test_a_type_that_no_consumer_has_goes_to_the_history(processes: Site) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)

    for event_type in ("nobody.has.this", "", "No Type!", "a" * 200, "gomq\0"[:4]):
        put(envelope(type="nobody.has.this"), type=event_type)
    process.send(1)

    wait_until(lambda: notes.numbers == [1])
    wait_until(lambda: len(execute("SELECT 1 FROM gomq_event")) == 6)


def test_what_its_columns_hand_to_the_wrong_consumer_waits(processes: Site) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)

    put(envelope(type="nobody.has.this"))
    process.send(1)

    wait_until(lambda: notes.numbers == [1])
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery WHERE state = 2"))


BROKEN = ["", "{", "null", "7", '{"a": 1}', "[1]", '["Not A Type"]', '["suite.*.x"]']


@pytest.mark.parametrize("types", BROKEN)
def test_a_consumer_row_that_nobody_can_read_stops_no_other(
    processes: Site, types: str
) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)
    execute(
        "INSERT INTO gomq_consumer (name, types, ordered) VALUES (%s, %s, %s)",
        "broken.row",
        types,
        False,
    )

    process.send(1)

    wait_until(lambda: notes.numbers == [1])
    assert CONSUMER in process.broker.backend.stats().consumers


def test_what_a_consumer_wants_whose_row_is_broken_is_kept_for_its_repair(
    processes: Site,
) -> None:
    process, notes = processes.process(), Notes()
    process.consume(notes)
    execute("UPDATE gomq_consumer SET types = %s", "{")
    assert process.broker.check_server() == [
        f"Recorded with no types to read: {CONSUMER}. Run manage.py gomq setup."
    ]

    process.send(1)
    put(envelope(type="nobody.has.this"), type="nobody.has.this")

    wait_until(lambda: notes.numbers == [1])
    wait_until(lambda: execute("SELECT 1 FROM gomq_delivery WHERE state = 2"))
    process.broker.setup()
    assert process.broker.check_server() == []


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 1_000_000, "\x1b[31m"])
def test_whatever_an_error_says_it_is_a_dead_letter(processes: Site, text: str) -> None:
    def fail(message: Any) -> None:
        raise ValueError(text)

    process = processes.process()
    process.consume(Notes(fail))

    process.send(1)

    wait_until(process.broker.dead_letters)
