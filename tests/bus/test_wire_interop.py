"""The CloudEvents SDK reads what we send, and we read what it sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from django_gomq.bus.message import Message
from django_gomq.bus.wire import (
    STRUCTURED_CONTENT_TYPE,
    WireMessage,
    decode_binary,
    decode_structured,
    encode_binary,
    encode_structured,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MADE = 1_764_376_278.123456
SENT: Message[Any] = Message(
    "health.record.saved",
    '{"name": "Zoë"}'.encode(),
    "pätient 7",
    9,
    {
        "tenant": 'a"b',
        "traceparent": TRACE,
        "causationid": "the cause",
        "correlationid": "the first",
    },
    2.5,
    MADE,
)
ATTRIBUTES = {
    "specversion": "1.0",
    "id": SENT.id,
    "source": "/clinic",
    "type": "health.record.saved",
    "time": datetime.fromtimestamp(MADE, UTC),
    "datacontenttype": "application/json",
    "dataschema": "gomq:health.record.saved:2",
    "partitionkey": "pätient 7",
    "traceparent": TRACE,
    "causationid": "the cause",
    "correlationid": "the first",
    "gomqpriority": 9,
    "gomqdelay": "2.5",
    "gomqattempt": 3,
    "gomqheaders": '{"tenant":"a\\"b"}',
}


def made_by_the_sdk(data: Any = None, **changes: Any) -> CloudEvent:
    data = {"name": "Zoë"} if data is None else data
    return CloudEvent({**ATTRIBUTES, **changes}, data)


def attributes_of(event: Any) -> dict[str, Any]:
    """Return its attributes; in binary mode all but the time are texts."""
    return {
        name: value if isinstance(value, datetime) else str(value)
        for name, value in event.get_attributes().items()
    }


EXPECTED = attributes_of(made_by_the_sdk())


def assert_as_sent(found: WireMessage) -> None:
    message = found.message
    assert (message.id, message.type, message.key) == (SENT.id, SENT.type, SENT.key)
    assert (message.priority, message.delay) == (9, 2.5)
    assert (message.made, message.headers) == (MADE, SENT.headers)
    assert message.data == {"name": "Zoë"}
    assert (found.source, found.attempt, found.version) == ("/clinic", 3, 2)


# ------------------------------------------------------------------- it reads ours


def test_the_sdk_reads_our_structured_events() -> None:
    raw = encode_structured(SENT, source="/clinic", attempt=3, version=2)

    event = JSONFormat().read(None, raw)

    assert isinstance(event, CloudEvent)
    assert event.get_attributes() == ATTRIBUTES
    assert event.get_data() == {"name": "Zoë"}


def test_the_sdk_reads_our_binary_events_from_kafka() -> None:
    headers, body = encode_binary(SENT, source="/clinic", attempt=3, version=2)
    on_kafka = {name: value.encode() for name, value in headers.items()}

    event = kafka.from_kafka(kafka.KafkaMessage(on_kafka, None, body), JSONFormat())

    assert attributes_of(event) == EXPECTED
    assert event.get_data() == {"name": "Zoë"}


def test_the_sdk_reads_our_binary_events_from_rabbitmq() -> None:
    headers, body = encode_binary(
        SENT, source="/clinic", attempt=3, version=2, prefix="ce-"
    )
    content_type = headers.pop("content-type")

    event = rabbitmq.from_binary(
        rabbitmq.RabbitMQMessage(headers, content_type, body), JSONFormat()
    )

    assert attributes_of(event) == EXPECTED


@pytest.mark.parametrize("body", [b"null", b"[1, 2]", b'"text"', b"7"])
def test_the_sdk_reads_data_of_every_kind(body: bytes) -> None:
    message: Message[Any] = Message("a.b", body)

    event = JSONFormat().read(None, encode_structured(message, source="/x"))

    assert event.get_data() == message.data


# ---------------------------------------------------------------- we read what it sends


def test_we_read_structured_events_of_the_sdk() -> None:
    raw = JSONFormat().write(made_by_the_sdk())

    assert_as_sent(decode_structured(raw, max_body_bytes=100))


def test_we_read_bytes_that_the_sdk_writes_as_base64() -> None:
    raw = JSONFormat().write(made_by_the_sdk('{"name": "Zoë"}'.encode()))

    assert b"data_base64" in raw
    assert_as_sent(decode_structured(raw, max_body_bytes=100))


def test_we_read_structured_events_of_the_sdk_from_kafka() -> None:
    sent = kafka.to_structured(made_by_the_sdk(), JSONFormat())

    assert sent.headers["content-type"].decode() == STRUCTURED_CONTENT_TYPE
    assert_as_sent(decode_structured(sent.value, max_body_bytes=100))


def test_we_read_binary_events_of_the_sdk_from_kafka() -> None:
    sent = kafka.to_binary(made_by_the_sdk(), JSONFormat())

    assert_as_sent(decode_binary(sent.headers, sent.value, max_body_bytes=100))


def test_we_read_binary_events_of_the_sdk_from_rabbitmq() -> None:
    sent = rabbitmq.to_binary(made_by_the_sdk(), JSONFormat())
    headers = {**sent.headers, "content-type": sent.content_type}

    assert_as_sent(decode_binary(headers, sent.body, max_body_bytes=100))


def test_we_read_what_the_sdk_makes_of_the_least() -> None:
    event = CloudEvent({"type": "a.b", "source": "/x"})
    sent = kafka.to_binary(event, JSONFormat())

    for found in (
        decode_structured(JSONFormat().write(event), max_body_bytes=100),
        decode_binary(sent.headers, sent.value, max_body_bytes=100),
    ):
        assert found.message.id == event.get_id()
        assert found.message.time == event.get_time()
        assert (found.message.data, found.attempt) == (None, 1)
