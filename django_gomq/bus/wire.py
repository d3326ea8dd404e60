"""A message outside of its process: CloudEvents 1.0, structured and binary.

Both modes say the same (docs/wire.md has the table of attributes). Structured is one
JSON object, the JSON event format of CloudEvents, section 3; binary has the attributes
as headers of the transport and the body as it is. Users' headers are one attribute,
``gomqheaders``, a JSON object as text, in both: names of attributes are up to 20 of a-z
and 0-9 (CloudEvents, section 3.1), ours are not, and beside the transport's own headers
they would be taken for those. ``traceparent`` and ``tracestate`` (W3C Trace Context,
sections 3.2 and 3.3) are attributes of their own (CloudEvents' extension Distributed
Tracing), so that others find them, and so are ``causationid`` and ``correlationid``
(its extension Correlation).

A decoder trusts nothing: names, sizes and types are checked, and nothing is imported or
looked up by a name from a message.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta, Raw

from .errors import ConfigurationError, DecodeError, EncodeError, MessageError
from .message import (
    CAUSATION,
    CORRELATION,
    DEFAULT_PRIORITY,
    MAX_HEADER_BYTES,
    MAX_ID_LENGTH,
    MAX_PRIORITY,
    NO_HEADERS,
    Message,
    is_id,
    validate,
    validate_type,
)

STRUCTURED_CONTENT_TYPE: Final = "application/cloudevents+json"
"""The content type of a structured event, for transports that have one."""
MAX_SOURCE_LENGTH: Final = 500
MAX_ATTRIBUTE_BYTES: Final = 32_768  # all but the data; headers with escapes take half

_VERSION: Final = "1.0"
_JSON_TYPE: Final = "application/json"
_JSON_TYPES = re.compile(
    r"(application|text)/([a-z0-9.-]+\+)?json *(;.*)?", re.IGNORECASE
)
_BINARY_NAME = re.compile(r"(?:ce[_-]|cloudevents[:_])([a-z0-9]+)")
_INTEGER = re.compile(r"[0-9]{1,10}")
_SECONDS = re.compile(r"[0-9.e+-]{1,32}")
_MAX_INTEGER: Final = 2**31 - 1  # CloudEvents, section 3.2: Integer
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_MAX_TEXT: Final = 4 * MAX_HEADER_BYTES  # of headers as JSON, with all their escapes


def wire_headers(message: Message[Any]) -> dict[str, str]:
    """Return what a server has to keep: a copy of the headers, with the trace's.

    The trace is what an observer has the message carry (``Message.trace_context``);
    its headers replace those of the same name. Thread-safe, never blocks or raises.
    """
    trace = message.trace_context
    if trace is None:
        return dict(message.headers)
    return trace.write(message.headers)


class WireMessage(msgspec.Struct, frozen=True, eq=False):
    """A message that came from a server, with what its envelope says beside it."""

    message: Message[Any]
    attempt: int
    """Which attempt of a consumer this is, as its sender counts; from 1."""
    source: str
    """Who made the event."""
    version: int | None
    """The version of its Event class, if it was said."""


_Text = Annotated[str, Meta(min_length=1, max_length=_MAX_TEXT)] | None


class _Attributes(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The attributes in the order in which they are written; null is absent."""

    specversion: Annotated[str, Meta(max_length=20)]
    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
    source: Annotated[str, Meta(min_length=1, max_length=MAX_SOURCE_LENGTH)]
    type: str
    time: Annotated[datetime, Meta(tz=True)] | None = None
    datacontenttype: _Text = None
    dataschema: str | None = None
    partitionkey: _Text = None
    traceparent: _Text = None
    tracestate: _Text = None
    causationid: _Text = None
    correlationid: _Text = None
    gomqpriority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] = DEFAULT_PRIORITY
    gomqdelay: _Text = None
    gomqattempt: Annotated[int, Meta(ge=1, le=_MAX_INTEGER)] = 1
    gomqheaders: _Text = None


_NO_DATA = Raw(b"null")


class _Structured(_Attributes, frozen=True, gc=False, omit_defaults=True):
    """The JSON object."""

    data: Raw = _NO_DATA
    data_base64: bytes | None = None


def _adapt(value: Any) -> Any:
    """Return a text or a moment of a subclass as its base."""
    # Clocks that a test has stopped make moments of a class of their own.
    if isinstance(value, datetime):
        return _EPOCH + (value - _EPOCH)
    return str.__str__(value)


_encode = msgspec.json.Encoder(enc_hook=_adapt).encode
_decode_structured = msgspec.json.Decoder(_Structured).decode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_skip = msgspec.json.Decoder(Raw).decode
# Lists of pairs instead of dicts, so that a name that comes twice is seen; no number is
# made, as one of a million digits takes seconds.
_decode_pairs = json.JSONDecoder(
    object_pairs_hook=list, parse_int=str, parse_float=str
).decode
_WRONG_JSON = (msgspec.MsgspecError, RecursionError, ValueError)

# 30 ns where the pattern takes 400; bounded, as a sender may make names of data.
_validate_type = functools.lru_cache(1024)(validate_type)


# ------------------------------------------------------------------------- encoding


def encode_structured(
    message: Message[Any], *, source: str, attempt: int = 1, version: int | None = None
) -> bytes:
    """Return a message that ``validate`` let through as one JSON object.

    ``source`` says who made it: a URI reference of 1 to 500 printable characters.
    ``version`` is that of its Event class. White space around the body is left out.

    Raises EncodeError if the body is not JSON, or the message has an id or a time that
    a decoder would refuse; ConfigurationError for such a type or source. Thread-safe,
    never blocks.
    """
    attributes = _describe(message, source, attempt, version)
    body = _json_of(message)
    return b"".join((_encode(attributes)[:-1], b',"data":', body, b"}"))


def encode_binary(
    message: Message[Any],
    *,
    source: str,
    attempt: int = 1,
    version: int | None = None,
    prefix: str = "ce_",
) -> tuple[dict[str, str], bytes]:
    """Return the headers for a transport, and the body as it is.

    Their names are ``prefix`` and the attribute's (``ce_`` in Kafka's binding, ``ce-``
    in that of HTTP, ``cloudEvents:`` in AMQP's), and ``content-type``. The values are
    plain text: a transport that needs bytes or escapes makes them itself. Otherwise as
    ``encode_structured``.
    """
    described = _describe(message, source, attempt, version)
    attributes = msgspec.to_builtins(described, enc_hook=_adapt)
    _json_of(message)
    headers = {"content-type": attributes.pop("datacontenttype")}
    for name, value in attributes.items():
        headers[prefix + name] = str(value)
    return headers, message.body


def _describe(
    message: Message[Any], source: str, attempt: int, version: int | None
) -> _Attributes:
    event_type = _validate_type(message.type)
    if not _is_text(source, MAX_SOURCE_LENGTH):
        raise ConfigurationError(
            f"The source is {source!r:.120}, not a URI reference of 1 to "
            f"{MAX_SOURCE_LENGTH} printable characters."
        )
    message_id = message.id
    if not is_id(message_id):
        raise EncodeError(
            f"The id is not a text of 1 to {MAX_ID_LENGTH} printable characters.",
            event=event_type,
        )
    if not 0 <= message.made < _END_OF_TIME:
        raise EncodeError("It was not made between 1970 and 9998.", event=event_type)
    headers = wire_headers(message)
    return _Attributes(
        _VERSION,
        message_id,
        source,
        event_type,
        message.time,
        _JSON_TYPE,
        None if version is None else f"{_schema_prefix(event_type)}{version}",
        None if message.key is None else _escape(message.key),
        _take(headers, "traceparent") if headers else None,
        _take(headers, "tracestate") if headers else None,
        _take(headers, CAUSATION) if headers else None,
        _take(headers, CORRELATION) if headers else None,
        message.priority,
        repr(float(message.delay)) if message.delay else None,
        attempt,
        _encode(headers).decode() if headers else None,
    )


def _take(headers: dict[str, str], name: str) -> str | None:
    """Take a header out; an empty one stays, as no attribute may be empty."""
    return headers.pop(name) if headers.get(name) else None


def _escape(key: str) -> str:
    """Return a key as attributes and headers may have it; ``_unescape`` reads it."""
    key = str.__str__(key)
    if key.isprintable() and "%" not in key:
        return key
    return quote(key, safe="", errors="surrogatepass")


def _unescape(key: str) -> str:
    if "%" not in key:
        return key
    try:
        return unquote(key, errors="surrogatepass")
    except UnicodeDecodeError:
        return key  # of somebody who escapes otherwise


def _schema_prefix(event_type: str) -> str:
    return f"gomq:{event_type}:"


def _is_text(value: object, limit: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable()


def _json_of(message: Message[Any]) -> bytes:
    try:
        return _check_json(message.body)
    except _WRONG_JSON as error:
        raise EncodeError(
            f"The body is not JSON: {error}", event=message.type
        ) from None


def _check_json(body: bytes) -> bytes:
    """Return the JSON value of a body; raises one of _WRONG_JSON."""
    str(body, "utf-8")  # as in decode_structured
    return bytes(_skip(body))


# ------------------------------------------------------------------------- decoding


def decode_structured(raw: bytes, *, max_body_bytes: int) -> WireMessage:
    """Return the message in a JSON object.

    Extensions of others are ignored. Without data the body is ``null``; ``data_base64``
    is decoded, and has to be JSON as well. A type that nobody here knows is fine. The
    id stays what its sender made. A delay counts from the message's own time, so that
    one that is read when it is due, or again, does not wait again.

    Raises DecodeError, which says what is wrong with it, and nothing else. Thread-safe,
    never blocks.
    """
    limit = max_body_bytes * 4 // 3 + MAX_ATTRIBUTE_BYTES  # as base64
    if len(raw) > limit:
        raise DecodeError(f"The envelope has {len(raw)} bytes, the limit is {limit}.")
    try:
        str(raw, "utf-8")  # RFC 8259, section 8.1; what is skipped is not looked at
        found = _decode_structured(raw)
        _refuse_twice(raw, _encode(found))
    except _WRONG_JSON as error:
        raise DecodeError(f"This is no CloudEvent in JSON: {error}") from None
    if found.data_base64 is None:
        return _open(found, bytes(found.data), max_body_bytes)
    if found.data is not _NO_DATA:
        raise DecodeError("It has both data and data_base64.", event=found.type)
    return _with_json(_open(found, found.data_base64, max_body_bytes))


def decode_binary(
    headers: Mapping[str, object], body: bytes, *, max_body_bytes: int
) -> WireMessage:
    """Return the message in a transport's headers and body.

    Names may be those of any binding (``ce_id``, ``ce-id``, ``cloudEvents:id``,
    ``cloudEvents_id``), in upper or lower case; other headers are ignored. Values are
    texts, or bytes in UTF-8. Without a body it is ``null``. Otherwise as
    ``decode_structured``.
    """
    try:
        found = msgspec.convert(_attributes_in(headers), _Attributes)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise DecodeError(f"These are no headers of a CloudEvent: {error}") from None
    return _with_json(_open(found, body or b"null", max_body_bytes))


def _attributes_in(headers: Mapping[str, object]) -> dict[str, object]:
    attributes: dict[str, object] = {}
    for header, value in headers.items():
        name = _attribute_name(header)
        if name is None:
            continue
        if name in attributes:
            raise DecodeError(f"The attribute {name:.40} is there twice.")
        text = value.decode() if isinstance(value, bytes) else value
        if name in _INTEGERS and isinstance(text, str) and _INTEGER.fullmatch(text):
            attributes[name] = int(text)
        else:
            attributes[name] = text
    return attributes


_INTEGERS: Final = frozenset({"gomqpriority", "gomqattempt"})


def _attribute_name(header: object) -> str | None:
    """Return the attribute that a header stands for, if any."""
    if not isinstance(header, str):
        return None
    header = header.lower()
    if header == "content-type":
        return "datacontenttype"
    found = _BINARY_NAME.fullmatch(header)
    return found[1] if found else None


def _refuse_twice(raw: bytes, written: bytes) -> None:
    """Raise DecodeError if a JSON object has a name twice.

    ``written`` is what was decoded from it, encoded again: where that is the same there
    is nothing to look for, and so it is with all that we send ourselves.
    """
    if raw == written:
        return
    names = [name for name, _ in _decode_pairs(str(raw, "utf-8"))]
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise DecodeError(f"The name {twice!r:.40} is there twice.")


def _open(found: _Attributes, body: bytes, max_body_bytes: int) -> WireMessage:
    try:
        _check_attributes(found)
        message: Message[Any] = Message(
            _validate_type(found.type),
            body,
            None if found.partitionkey is None else _unescape(found.partitionkey),
            found.gomqpriority,
            _headers_in(found),
            _delay_in(found),
            _made_in(found),
            found.id,
        )
        validate(message, max_body_bytes=max_body_bytes)
    except DecodeError as error:
        error.event = found.type
        raise
    except (MessageError, ConfigurationError) as error:
        raise DecodeError(str(error), event=found.type) from None
    version = _version_in(found.dataschema, found.type)
    return WireMessage(message, found.gomqattempt, found.source, version)


def _with_json(read: WireMessage) -> WireMessage:
    """Return it, if its body is JSON; of ``data`` the decoder has seen to that."""
    message = read.message
    try:
        _check_json(message.body)
    except _WRONG_JSON as error:
        raise DecodeError(
            f"The data is not JSON: {error}", event=message.type
        ) from None
    return read


def _check_attributes(found: _Attributes) -> None:
    if found.specversion != _VERSION:
        raise DecodeError(f"specversion is {found.specversion!r}, not {_VERSION}.")
    if not (found.id.isprintable() and found.source.isprintable()):
        name = "source" if found.id.isprintable() else "id"
        raise DecodeError(f"{name} has characters to escape.")
    content_type = found.datacontenttype
    if content_type is None or content_type == _JSON_TYPE:
        return
    if not _JSON_TYPES.fullmatch(content_type):
        raise DecodeError(f"datacontenttype is {content_type!r:.120}, not JSON.")


def _headers_in(found: _Attributes) -> dict[str, str]:
    headers = {}
    if found.gomqheaders is not None:
        try:
            headers = _decode_headers(found.gomqheaders)
            _refuse_twice(found.gomqheaders.encode(), _encode(headers))
        except _WRONG_JSON as error:
            raise DecodeError(f"gomqheaders is no JSON of texts: {error}") from None
    if found.traceparent is not None:
        headers["traceparent"] = found.traceparent
    if found.tracestate is not None:
        headers["tracestate"] = found.tracestate
    if found.causationid is not None:
        headers[CAUSATION] = found.causationid
    if found.correlationid is not None:
        headers[CORRELATION] = found.correlationid
    return headers or NO_HEADERS


def _delay_in(found: _Attributes) -> float:
    text = found.gomqdelay
    if text is None:
        return 0.0
    if found.time is None:
        raise DecodeError("gomqdelay counts from a time, and there is none.")
    try:
        if _SECONDS.fullmatch(text):
            return float(text)
    except ValueError:
        pass
    raise DecodeError(f"gomqdelay is {text!r:.40}, not seconds.")


def _made_in(found: _Attributes) -> float:
    if found.time is None:
        return time.time()
    made = found.time.timestamp()
    if 0 <= made < _END_OF_TIME:
        return made
    raise DecodeError(f"time is {found.time}, not between 1970 and 9998.")


@functools.lru_cache(1024)  # bounded, as a sender may make names of data
def _version_in(schema: str | None, event_type: str) -> int | None:
    """Return the version of our Event class; schemas of others say nothing to us."""
    prefix, schema = _schema_prefix(event_type), schema or ""
    version = schema.removeprefix(prefix)
    if version == schema or not _INTEGER.fullmatch(version):
        return None
    return int(version)
