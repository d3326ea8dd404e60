"""What is sent is what is read, and whatever else is read is a message or an error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.errors import DecodeError
from django_gomq.bus.message import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Message,
    validate,
    validate_type,
)
from django_gomq.bus.wire import (
    WireMessage,
    decode_binary,
    decode_structured,
    encode_binary,
    encode_structured,
    wire_headers,
)

LIMIT = 10_000  # bytes of a body


class Carried(msgspec.Struct, frozen=True):
    trace: str

    def write(self, headers: Mapping[str, str]) -> dict[str, str]:
        written = {**headers, "traceparent": self.trace}
        return written if len(written) <= MAX_HEADERS else dict(headers)


def is_printable(text: str) -> bool:
    return text.isprintable()


def fit(headers: dict[str, str]) -> bool:
    size = sum(len(name) + len(value.encode()) for name, value in headers.items())
    return size <= MAX_HEADER_BYTES - 100  # with room for a trace


TEXTS = st.text(st.characters(codec="utf-8"), max_size=200).filter(is_printable)
SOME_TEXTS = TEXTS.filter(bool)
KEYS = st.text(st.characters(), min_size=1, max_size=200) | st.text(
    st.sampled_from("%2541aé\u00a0\u200d\n\x00\ud800"), min_size=1, max_size=200
)
TYPES = st.from_regex(r"[a-z0-9_]{1,20}(\.[a-z0-9_]{1,20}){0,3}", fullmatch=True)
NAMES = st.from_regex(re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII), fullmatch=True)
HEADERS = st.dictionaries(
    NAMES | st.sampled_from(["traceparent", "tracestate", "baggage"]),
    TEXTS,
    max_size=MAX_HEADERS,
).filter(fit)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, width=32)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS.filter(math.isfinite) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=10,
)
MESSAGES = st.builds(
    Message[Any],
    TYPES,
    VALUES.map(msgspec.json.encode),
    st.none() | KEYS,
    st.integers(0, 9),
    HEADERS,
    st.floats(0, allow_infinity=False) | st.integers(0, 10**9),
    st.floats(0, 2**32),
    st.integers(0, 2**47) | SOME_TEXTS,
    st.none() | st.builds(Carried, SOME_TEXTS.filter(lambda text: len(text) < 20)),
)
ATTEMPTS = st.integers(1, 2**31 - 1)
VERSIONS = st.none() | st.integers(0, 10**9)


def assert_same(found: WireMessage, sent: Message[Any]) -> None:
    message = found.message
    assert message.id == sent.id
    assert (message.type, message.body, message.key) == (sent.type, sent.body, sent.key)
    assert message.priority == sent.priority
    assert message.delay == sent.delay
    assert message.headers == wire_headers(sent)
    assert message.time == sent.time
    assert message.trace_context is None


@settings(deadline=None)
@given(MESSAGES, SOME_TEXTS, ATTEMPTS, VERSIONS)
def test_structured_comes_back_as_it_was(
    message: Message[Any], source: str, attempt: int, version: int | None
) -> None:
    validate(message, max_body_bytes=LIMIT)

    raw = encode_structured(message, source=source, attempt=attempt, version=version)
    found = decode_structured(raw, max_body_bytes=LIMIT)

    assert_same(found, message)
    assert (found.source, found.attempt, found.version) == (source, attempt, version)
    json.loads(raw)


@settings(deadline=None)
@given(MESSAGES, SOME_TEXTS, ATTEMPTS, VERSIONS)
def test_binary_comes_back_as_it_was(
    message: Message[Any], source: str, attempt: int, version: int | None
) -> None:
    sent = encode_binary(message, source=source, attempt=attempt, version=version)
    found = decode_binary(*sent, max_body_bytes=LIMIT)

    assert_same(found, message)
    assert (found.source, found.attempt, found.version) == (source, attempt, version)
    assert sent[1] is message.body


@settings(deadline=None)
@given(MESSAGES, st.text(" \t\r\n", max_size=3), st.randoms())
def test_structured_may_be_laid_out_otherwise(
    message: Message[Any], space: str, random: Any
) -> None:
    members = json.loads(encode_structured(message, source="/x"))
    names = list(members)
    random.shuffle(names)
    separators = (f"{space},{space}", f"{space}:{space}")
    text = json.dumps({name: members[name] for name in names}, separators=separators)

    found = decode_structured(text.encode(), max_body_bytes=10 * LIMIT)

    assert (found.message.id, found.message.data) == (message.id, message.data)
    assert found.message.headers == wire_headers(message)


# -------------------------------------------------------------- what is not as sent


def assert_valid(found: WireMessage) -> None:
    """Assert all that the bus relies on, of what came from elsewhere."""
    message = found.message
    validate(message, max_body_bytes=LIMIT)
    validate_type(message.type)
    assert message.id.isprintable()
    assert message.time.timestamp() == pytest.approx(message.made, abs=1e-4)
    assert math.isfinite(message.available)
    assert found.attempt.__class__ is int
    assert found.attempt >= 1
    assert isinstance(message.headers, dict)
    try:
        _ = message.data
    except DecodeError:  # such as a number that no float holds
        json.loads(message.body)


def read_or_refuse(raw: bytes) -> None:
    try:
        found = decode_structured(raw, max_body_bytes=LIMIT)
    except DecodeError:
        return
    assert_valid(found)


SHORT = st.binary(max_size=8) | st.sampled_from(
    [b'"', b"\\", b",", b":", b"{", b"}", b"null", b"1e999", b"\\ud800", b'"id":"x",']
)
EDITS = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 20), SHORT), min_size=1, max_size=4
)


@settings(deadline=None)
@given(MESSAGES, EDITS)
def test_bytes_that_were_changed_are_a_message_or_an_error(
    message: Message[Any], edits: list[tuple[int, int, bytes]]
) -> None:
    raw = encode_structured(message, source="/x", attempt=7, version=1)

    for where, length, put in edits:
        at = where % len(raw)
        raw = raw[:at] + put + raw[at + length :] or b"x"

    read_or_refuse(raw)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    read_or_refuse(raw)


ODD = (
    VALUES
    | st.sampled_from(["", "null", "1e999", "9" * 5000, "x" * 5000, "\n", "{}", '{"a'])
    | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}[Z+-][0-9:]{0,5}")
    | st.integers()
    | st.floats()
    | st.lists(st.integers())
)
ATTRIBUTES = st.sampled_from(
    [
        *("specversion", "id", "source", "type", "time", "datacontenttype", "data"),
        *("dataschema", "partitionkey", "traceparent", "tracestate", "gomqpriority"),
        *("gomqdelay", "gomqattempt", "gomqheaders", "data_base64", "another"),
    ]
)
CHANGES = st.dictionaries(ATTRIBUTES, ODD, min_size=1, max_size=4)


@settings(deadline=None)
@given(MESSAGES, CHANGES)
def test_attributes_that_were_changed_are_a_message_or_an_error(
    message: Message[Any], changes: dict[str, Any]
) -> None:
    members = json.loads(encode_structured(message, source="/x", attempt=7, version=1))

    read_or_refuse(json.dumps(members | changes).encode())


@settings(deadline=None)
@given(
    MESSAGES,
    st.dictionaries(ATTRIBUTES, ODD | st.text() | st.binary(), max_size=4),
    st.none() | st.binary(max_size=50),
)
def test_headers_that_were_changed_are_a_message_or_an_error(
    message: Message[Any], changes: dict[str, Any], body: bytes | None
) -> None:
    headers: dict[str, Any]
    headers, sent = encode_binary(message, source="/x", attempt=7, version=1)
    headers = headers | {f"ce_{name}": value for name, value in changes.items()}

    try:
        found = decode_binary(
            headers, sent if body is None else body, max_body_bytes=LIMIT
        )
    except DecodeError:
        return
    assert_valid(found)
