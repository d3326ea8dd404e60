"""A message as a CloudEvent: what is written, and what is not read."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import freezegun
import pytest

from django_gomq.bus.errors import ConfigurationError, DecodeError, EncodeError
from django_gomq.bus.message import MAX_HEADER_BYTES, MAX_HEADERS, NO_HEADERS, Message
from django_gomq.bus.wire import (
    MAX_ATTRIBUTE_BYTES,
    WireMessage,
    decode_binary,
    decode_structured,
    encode_binary,
    encode_structured,
)

LIMIT = 1000  # bytes of a body
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MADE = 1_764_376_278.123456
TIME = "2025-11-29T00:31:18.123456Z"
PLAIN: Message[Any] = Message("page.viewed", made=MADE, number="an id")
FULL: Message[Any] = Message(
    "health.record.saved",
    b'{"record_id":1}',
    "pätient 7",
    9,
    {"tenant": 'a"b', "traceparent": TRACE, "tracestate": "x=1"},
    2.5,
    MADE,
    "01a224c5-3859-7596-baea-4b76ed714296",
)


def structured(**changes: Any) -> bytes:
    """Return an event as somebody else may send it; ... leaves a member out."""
    members = {"specversion": "1.0", "id": "1", "source": "/x", "type": "a.b"} | changes
    return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()


def binary(**changes: Any) -> dict[str, Any]:
    headers = {"specversion": "1.0", "id": "1", "source": "/x", "type": "a.b"} | changes
    return {f"ce_{k}": v for k, v in headers.items() if v is not ...}


def read(raw: bytes) -> WireMessage:
    return decode_structured(raw, max_body_bytes=LIMIT)


def read_binary(headers: dict[str, Any], body: bytes = b"1") -> WireMessage:
    return decode_binary(headers, body, max_body_bytes=LIMIT)


# ------------------------------------------------------------------ what is written


def test_a_plain_message_has_few_attributes() -> None:
    assert encode_structured(PLAIN, source="/clinic") == (
        b'{"specversion":"1.0","id":"an id","source":"/clinic","type":"page.viewed",'
        b'"time":"2025-11-29T00:31:18.123456Z","datacontenttype":"application/json",'
        b'"data":null}'
    )


def test_all_that_a_message_has_is_an_attribute() -> None:
    raw = encode_structured(FULL, source="/clinic", attempt=3, version=2)

    assert raw.decode() == (
        '{"specversion":"1.0","id":"01a224c5-3859-7596-baea-4b76ed714296",'
        '"source":"/clinic","type":"health.record.saved",'
        '"time":"2025-11-29T00:31:18.123456Z","datacontenttype":"application/json",'
        '"dataschema":"gomq:health.record.saved:2","partitionkey":"pätient 7",'
        f'"traceparent":"{TRACE}","tracestate":"x=1","gomqpriority":9,'
        '"gomqdelay":"2.5","gomqattempt":3,'
        '"gomqheaders":"{\\"tenant\\":\\"a\\\\\\"b\\"}","data":{"record_id":1}}'
    )


def test_binary_has_the_same_as_headers() -> None:
    headers, body = encode_binary(FULL, source="/clinic", attempt=3, version=2)

    assert body is FULL.body
    assert headers == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": "01a224c5-3859-7596-baea-4b76ed714296",
        "ce_source": "/clinic",
        "ce_type": "health.record.saved",
        "ce_time": TIME,
        "ce_dataschema": "gomq:health.record.saved:2",
        "ce_partitionkey": "pätient 7",
        "ce_traceparent": TRACE,
        "ce_tracestate": "x=1",
        "ce_gomqpriority": "9",
        "ce_gomqdelay": "2.5",
        "ce_gomqattempt": "3",
        "ce_gomqheaders": '{"tenant":"a\\"b"}',
    }


def test_under_a_stopped_clock_the_same_is_written() -> None:
    before = encode_structured(FULL, source="/x"), encode_binary(FULL, source="/x")

    with freezegun.freeze_time("2030-01-01"):
        stopped = encode_structured(FULL, source="/x"), encode_binary(FULL, source="/x")

    assert stopped == before


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "cloudEvents:", "cloudEvents_"])
def test_binary_knows_the_names_of_every_binding(prefix: str) -> None:
    headers, body = encode_binary(FULL, source="/clinic", attempt=3, prefix=prefix)

    found = read_binary(headers, body)

    assert prefix + "id" in headers
    assert (found.message.id, found.attempt) == (FULL.id, 3)


def test_what_carries_its_trace_has_it_written() -> None:
    class Carried:
        def write(self, headers: Any) -> dict[str, str]:
            return {**headers, "traceparent": TRACE}

    message: Message[Any] = Message("a.b", trace_context=Carried())

    found = read(encode_structured(message, source="/x"))

    assert found.message.headers == {"traceparent": TRACE}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'1,"type":"x.y"',
        b"NaN",
        b'"\xff"',
        b'"\\ud800"',
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=lambda body: repr(body[:15]),
)
def test_a_body_that_is_not_json_is_not_sent(body: bytes) -> None:
    message: Message[Any] = Message("a.b", body)

    with pytest.raises(EncodeError, match="The body is not JSON") as caught:
        encode_structured(message, source="/x")
    with pytest.raises(EncodeError, match="The body is not JSON"):
        encode_binary(message, source="/x")

    assert caught.value.event == "a.b"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (Message("a.b", number=""), "id is not a text of 1 to 200"),
        (Message("a.b", number="x" * 201), "id is not a text of 1 to 200"),
        (Message("a.b", number="a\nb"), "id is not a text of 1 to 200"),
        (Message("a.b", number="1", made=-1.0), "between 1970 and 9998"),
        (Message("a.b", number="1", made=float("nan")), "between 1970 and 9998"),
        (Message("a.b", number="1", made=1e300), "between 1970 and 9998"),
    ],
)
def test_what_no_decoder_would_read_is_not_sent(
    message: Message[Any], problem: str
) -> None:
    with pytest.raises(EncodeError, match=problem):
        encode_structured(message, source="/x")


def test_a_type_that_is_none_is_not_sent() -> None:
    with pytest.raises(ConfigurationError, match="is not an event type"):
        encode_structured(Message("A b"), source="/x")


@pytest.mark.parametrize("source", ["", "x" * 501, "a\nb", None])
def test_a_source_has_to_be_one(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="not a URI reference"):
        encode_binary(PLAIN, source=source)


# --------------------------------------------------------------------- what is read


def test_an_event_of_somebody_else_needs_four_attributes() -> None:
    before = time.time()
    found = read(structured())

    message = found.message
    assert (message.type, message.id, message.body) == ("a.b", "1", b"null")
    assert (message.key, message.priority, message.delay) == (None, 5, 0.0)
    assert message.headers is NO_HEADERS
    assert before <= message.made <= time.time()
    assert (found.attempt, found.source, found.version) == (1, "/x", None)


def test_so_it_does_in_binary() -> None:
    found = read_binary(binary(), b"")

    assert (found.message.id, found.message.body) == ("1", b"null")


def test_null_is_absent() -> None:
    found = read(structured(time=None, partitionkey=None, traceparent=None, data=None))

    assert (found.message.key, found.message.body) == (None, b"null")


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "x", "foreign": {"a": [1]}, "Odd Name": 1},
        {"datacontenttype": "application/vnd.acme+json; charset=utf-8"},
        {"datacontenttype": "Text/JSON"},
    ],
)
def test_what_others_add_is_ignored(changes: Any) -> None:
    assert read(structured(**changes)).message.id == "1"


def test_other_headers_of_a_transport_are_ignored() -> None:
    others: dict[Any, Any] = {"host": b"\xff", 7: 7, "ce_": "", "ce-B c": ""}

    assert read_binary(binary(foreign="x") | others).message.headers == {}


def test_headers_may_be_bytes_and_in_any_case() -> None:
    headers, body = encode_binary(FULL, source="/x", attempt=3)

    found = read_binary({k.upper(): v.encode() for k, v in headers.items()}, body)

    assert (found.message.key, found.attempt) == (FULL.key, 3)
    assert found.message.headers == FULL.headers


def test_data_in_base64_is_decoded() -> None:
    raw = structured(data_base64=base64.b64encode(b'{"a": 1}').decode())

    assert read(raw).message.data == {"a": 1}


@pytest.mark.parametrize(
    ("schema", "version"),
    [
        ("gomq:a.b:7", 7),
        ("gomq:a.c:7", None),
        ("gomq:a.b:", None),
        ("gomq:a.b:-1", None),
        ("gomq:a.b:99999999999", None),
        ("https://example.org/schema", None),
        ("", None),
    ],
)
def test_a_schema_of_ours_names_a_version(schema: str, version: int | None) -> None:
    assert read(structured(dataschema=schema)).version == version


@pytest.mark.parametrize("offset", ["Z", "+00:00", "-00:00"])
def test_a_time_may_be_written_otherwise(offset: str) -> None:
    raw = structured(time=f"2025-11-29t00:31:18.1234560{offset}")

    assert read(raw).message.made == MADE


def test_a_time_elsewhere_is_the_same_moment() -> None:
    raw = structured(time="2025-11-29T02:31:18.123456+02:00")

    assert read(raw).message.made == MADE


def test_a_delay_that_is_over_is_not_waited_for_again() -> None:
    before = time.monotonic()
    made = time.time() - 60
    message: Message[Any] = Message("a.b", delay=30.0, made=made)

    found = read(encode_structured(message, source="/x")).message

    available = found.available
    after = time.monotonic()
    assert found.delay == 30.0
    assert found.made == pytest.approx(made, abs=1e-6)
    # It reads two clocks, which may drift apart meanwhile.
    assert before - (after - before) - 1 <= available + 30 <= after + 1


def test_an_attribute_wins_over_a_header_of_its_name() -> None:
    raw = structured(gomqheaders='{"traceparent":"x","a":"1"}', traceparent=TRACE)

    assert read(raw).message.headers == {"traceparent": TRACE, "a": "1"}


def test_what_caused_a_message_are_attributes_of_their_own() -> None:
    ids = {"causationid": "the cause", "correlationid": "the first"}
    message: Message[Any] = Message("a.b", headers={"tenant": "7", **ids})

    raw = encode_structured(message, source="/x")
    headers, body = encode_binary(message, source="/x")

    assert {name: json.loads(raw)[name] for name in ids} == ids
    assert {name: headers["ce_" + name] for name in ids} == ids
    for found in (read(raw).message, read_binary(headers, body).message):
        assert (found.causation_id, found.correlation_id) == ("the cause", "the first")
        assert found.headers == message.headers


@pytest.mark.parametrize("headers", [{"traceparent": ""}, {"tracestate": "", "a": "b"}])
def test_an_empty_trace_is_a_header_as_any_other(headers: dict[str, str]) -> None:
    raw = encode_structured(Message("a.b", headers=headers), source="/x")

    assert read(raw).message.headers == headers
    assert headers.keys().isdisjoint(json.loads(raw))


def test_an_event_that_nobody_knows_is_fine() -> None:
    assert read(structured(type="who.knows.that")).message.type == "who.knows.that"


# ----------------------------------------------------------------- what is not read

BOTH: dict[str, tuple[dict[str, Any], str]] = {
    "no specversion": ({"specversion": ...}, "specversion"),
    "another specversion": ({"specversion": "0.3"}, "specversion is '0.3', not 1.0"),
    "a long specversion": ({"specversion": "1" * 50}, "specversion"),
    "no id": ({"id": ...}, "`id`"),
    "an empty id": ({"id": ""}, "id"),
    "a long id": ({"id": "x" * 201}, "id"),
    "an id on two lines": ({"id": "a\nb"}, "id has characters to escape"),
    "no source": ({"source": ...}, "`source`"),
    "a long source": ({"source": "x" * 501}, "source"),
    "a source on two lines": ({"source": "a\nb"}, "source has characters"),
    "no type": ({"type": ...}, "`type`"),
    "a type with a capital": ({"type": "com.Example"}, "is not an event type"),
    "a long type": ({"type": "x" * 201}, "is not an event type"),
    "a time without a zone": ({"time": "2026-01-01T00:00:00"}, "timezone"),
    "no time": ({"time": "yesterday"}, "RFC3339"),
    "a number for a time": ({"time": "1764376278"}, "RFC3339"),
    "a time long ago": ({"time": "0001-01-01T00:00:00+14:00"}, "1970 and 9998"),
    "the last time": ({"time": "9999-12-31T23:59:59-14:00"}, "1970 and 9998"),
    "an empty key": ({"partitionkey": ""}, "partitionkey"),
    "a long key": ({"partitionkey": "x" * 201}, "key must be a text"),
    "a delay without a time": ({"gomqdelay": "1"}, "counts from a time"),
    "no delay": ({"time": TIME, "gomqdelay": "soon"}, "gomqdelay is 'soon'"),
    "a delay of points": ({"time": TIME, "gomqdelay": "1.2.3"}, "gomqdelay is '1.2"),
    "a delay into the past": ({"time": TIME, "gomqdelay": "-1"}, "delay is -1.0"),
    "an endless delay": ({"time": TIME, "gomqdelay": "1e999"}, "delay is inf"),
    "a delay of nan": ({"time": TIME, "gomqdelay": "nan"}, "gomqdelay is 'nan'"),
    "a long delay": ({"time": TIME, "gomqdelay": "1" * 33}, "gomqdelay is '111"),
    "XML": ({"datacontenttype": "text/xml"}, "datacontenttype is 'text/xml'"),
    "headers of no JSON": ({"gomqheaders": "{"}, "gomqheaders is no JSON"),
    "headers of a list": ({"gomqheaders": "[]"}, "gomqheaders is no JSON"),
    "headers of numbers": ({"gomqheaders": '{"a":1}'}, "gomqheaders is no JSON"),
    "deep headers": ({"gomqheaders": '{"a":' * 3000}, "gomqheaders is no JSON"),
    "a header twice": ({"gomqheaders": '{"a":"1","a":"2"}'}, "name 'a' is there twice"),
    "a header of a bad name": ({"gomqheaders": '{"a b":""}'}, "header 'a b' has"),
    "a header on two lines": ({"gomqheaders": '{"a":"\\n"}'}, "header 'a' has"),
    "many headers": (
        {"gomqheaders": json.dumps({f"h{n}": "" for n in range(MAX_HEADERS + 1)})},
        "33 headers, the limit is 32",
    ),
    "large headers": (
        {"gomqheaders": json.dumps({"a": "x" * MAX_HEADER_BYTES})},
        "headers have 4097 bytes",
    ),
    "huge headers": ({"gomqheaders": " " * 20_000}, "gomqheaders"),
    "a cause of no length": ({"causationid": ""}, "causationid"),
    "a long cause": ({"causationid": "x" * 201}, "'causationid' is no id"),
    "a cause that does not print": ({"correlationid": "a\u200b"}, "is no id of 1 to"),
    "a long id in headers": (
        {"gomqheaders": json.dumps({"correlationid": "x" * 201})},
        "'correlationid' is no id",
    ),
    "a large trace": ({"traceparent": "x" * 4097}, "headers have 4108 bytes"),
}


@pytest.mark.parametrize(("changes", "problem"), BOTH.values(), ids=BOTH)
def test_what_breaks_a_rule_is_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        read(structured(**changes))
    with pytest.raises(DecodeError, match=problem):
        read_binary(binary(**changes))


NO_INTEGERS = ["-1", "1.5", "1e400", "NaN", "true", '"7"', "9" * 50, "9" * 10_000]
OUT_OF_RANGE = [("gomqpriority", "10"), ("gomqattempt", "0"), ("gomqattempt", "2" * 10)]
WRONG_NUMBERS = [
    *[(name, text) for name in ("gomqpriority", "gomqattempt") for text in NO_INTEGERS],
    *OUT_OF_RANGE,
]


@pytest.mark.parametrize(
    ("name", "number"), WRONG_NUMBERS, ids=lambda value: value[:60]
)
def test_a_number_that_is_none_of_its_kind_is_refused(name: str, number: str) -> None:
    raw = structured()[:-1] + f',"{name}":{number}}}'.encode()

    with pytest.raises(DecodeError):
        read(raw)
    with pytest.raises(DecodeError):
        read_binary(binary(**{name: number}))


@pytest.mark.parametrize("value", [7, True, None, 1.5, [], object(), b"\xff", "\udcff"])
def test_a_header_that_is_no_text_is_refused(value: Any) -> None:
    for name in ("id", "time", "gomqheaders"):
        if value is None and name != "id":  # it is absent
            continue
        with pytest.raises(DecodeError):
            read_binary(binary(**{name: value}))


JSON: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "truncated"),
    "half of it": (structured()[:-5], "truncated"),
    "another value": (b"[]", "Expected `object`, got `array`"),
    "a null": (b"null", "Expected `object`"),
    "a text for a number": (structured(id=7), "Expected `str`, got `int`"),
    "NaN": (structured(x=float("nan")), "malformed"),
    "NaN as data": (structured(data=float("nan")), "malformed"),
    "no UTF-8": (structured(x="#").replace(b"#", b"\xff"), "can't decode byte 0xff"),
    "no UTF-8 in data": (structured(data="#").replace(b"#", b"\xed\xa0\x80"), "decode"),
    "UTF-16": (structured().decode().encode("utf-16"), "decode"),
    "a byte order mark": (b"\xef\xbb\xbf" + structured(), "malformed"),
    "a lone surrogate": (structured(id="\ud800"), "no CloudEvent in JSON"),
    "deep data": (structured()[:-1] + b',"data":' + b"[" * 100_000, "recursion"),
    "deep elsewhere": (structured()[:-1] + b',"x":' + b"[" * 30_000, "recursion"),
    "a type twice": (structured()[:-1] + b',"type":"x.y"}', "'type' is there twice"),
    "data twice": (structured(data=1)[:-1] + b',"data":2}', "'data' is there twice"),
    "a hidden type": (
        structured()[:-1] + b',"\\u0074ype":"x.y"}',
        "'type' is there twice",
    ),
    "both kinds of data": (structured(data=1, data_base64="MQ=="), "both data and"),
    "no base64": (structured(data_base64="!"), "base64"),
    "other data in base64": (structured(data_base64="//8="), "data is not JSON"),
}


@pytest.mark.parametrize(("raw", "problem"), JSON.values(), ids=JSON)
def test_a_text_that_is_no_such_object_is_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode_structured(raw, max_body_bytes=200_000)


@pytest.mark.parametrize("body", [b"{", b"NaN", b'"\xff"', b"[" * 900 + b"x"])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="data is not JSON") as caught:
        read_binary(binary(), body)

    assert caught.value.event == "a.b"


def test_an_attribute_in_two_spellings_is_refused() -> None:
    with pytest.raises(DecodeError, match="attribute id is there twice"):
        read_binary(binary() | {"ce-id": "2"})


def test_a_body_has_a_limit() -> None:
    text = "x" * (LIMIT - 1)  # with its quotes one more than the limit

    with pytest.raises(DecodeError, match="body has 1001 bytes, the limit is 1000"):
        read(structured(data=text))
    with pytest.raises(DecodeError, match="body has 1001 bytes, the limit is 1000"):
        read_binary(binary(), json.dumps(text).encode())
    assert read(structured(data=text[1:])).message.data == text[1:]


def test_what_surrounds_the_body_has_a_limit() -> None:
    with pytest.raises(DecodeError, match="The envelope has"):
        read(structured(x="x" * (MAX_ATTRIBUTE_BYTES + LIMIT + LIMIT // 3)))


def test_all_that_a_message_may_have_fits() -> None:
    headers = {"a" * 100: '"' * 3990}
    body = json.dumps("x" * (LIMIT - 2)).encode()
    message: Message[Any] = Message("a" * 200, body, "\U00020000" * 200, 0, headers)
    raw = encode_structured(message, source="ü" * 500, version=2**31)

    found = read(raw)

    assert found.message.headers == headers
    assert len(raw) < MAX_ATTRIBUTE_BYTES


def test_an_error_names_the_event_where_it_is_known() -> None:
    with pytest.raises(DecodeError) as caught:
        read(structured(specversion="2.0"))

    assert (caught.value.event, caught.value.code) == ("a.b", "decode")


class Text(str):
    """A text of somebody else's, as SafeString is."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("pätient 7", "pätient 7"),
        (Text("a"), "a"),
        ("50%", "50%25"),
        ("%41", "%2541"),
        ("Jos\u00e9\u00a0G", "Jos%C3%A9%C2%A0G"),
        ("a\nb", "a%0Ab"),
        ("\ud800", "%ED%A0%80"),
    ],
    ids=ascii,
)
def test_a_key_is_escaped_where_an_attribute_cannot_have_it(
    key: str, written: str
) -> None:
    message: Message[Any] = Message(
        "a.b", key=key, headers={Text("x"): Text("y\u00a0\u200d")}
    )

    raw = encode_structured(message, source="lab")
    headers, body = encode_binary(message, source="lab")

    assert json.loads(raw)["partitionkey"] == written
    assert headers["ce_partitionkey"] == written
    for found in (
        decode_structured(raw, max_body_bytes=100),
        decode_binary(headers, body, max_body_bytes=100),
    ):
        assert (found.message.key, found.message.headers) == (
            key,
            {"x": "y\u00a0\u200d"},
        )


@pytest.mark.parametrize(("written", "key"), [("50%", "50%"), ("%FF", "%FF")])
def test_a_key_that_is_escaped_otherwise_stays_as_it_is(written: str, key: str) -> None:
    assert read(structured(partitionkey=written)).message.key == key
