"""The message: one frozen envelope that carries one event; it knows no queue."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Generic

import msgspec
from typing_extensions import TypeVar

from .errors import ConfigurationError, DecodeError, MessageError, MessageTooLargeError

E = TypeVar("E", default=Any)  # so that a bare Message needs no brackets

DEFAULT_PRIORITY: Final = 5
PRIORITIES: Final = range(10)
MAX_TYPE_LENGTH: Final = 200
MAX_KEY_LENGTH: Final = 200
MAX_HEADERS: Final = 32
MAX_HEADER_BYTES: Final = 4096  # all names and values of one message together

_EVENT_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_FOREVER = float("inf")
_JSON = msgspec.json.Decoder()
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class _IdSource:
    """UUIDv7 strings that sort in the order in which one process made them.

    RFC 9562, section 5.7 with a counter as in section 6.2, method 1: the first
    48 bits are milliseconds, the last 48 a counter that starts at random, and
    the 26 between them are drawn again each millisecond.
    """

    # Formatting only the counter keeps an id at a fifth of uuid.uuid4().
    def __init__(self) -> None:
        self._next = itertools.count(int.from_bytes(os.urandom(6)) >> 1).__next__
        self._head = (-1, "")

    def make(self, time_ns: int) -> str:
        ms = time_ns // 1_000_000
        head = self._head
        if head[0] != ms:
            head = self._head = (ms, self._make_head(ms))
        return head[1] + f"{self._next():012x}"

    @staticmethod
    def _make_head(ms: int) -> str:
        drawn = int.from_bytes(os.urandom(4))
        high, low = drawn >> 20, 0x8000 | drawn & 0x3FFF
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{high:03x}-{low:04x}-"


_ids = _IdSource()


def _renew_ids() -> None:
    global _ids  # noqa: PLW0603 - the one series of this process
    _ids = _IdSource()


# A child that is forked within the parent's millisecond must not repeat its ids.
os.register_at_fork(after_in_child=_renew_ids)


def new_id(time_ns: int) -> str:
    """Return a new UUIDv7 for this moment, in nanoseconds since 1970."""
    return _ids.make(time_ns)


def _new_id_now() -> str:
    return _ids.make(time.time_ns())


def decode_plain(message: Message[Any]) -> Any:
    """Decode the body as plain JSON; raises DecodeError."""
    try:
        return _JSON.decode(message.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(
            f"The body is not JSON: {error}", event=message.type
        ) from None


class Message(msgspec.Struct, Generic[E], frozen=True, eq=False, gc=False):
    """One event in its envelope; made once, shared by all who read it.

    Two messages are equal only if they are the same object: the queues compare
    items while they drain, and must never run code of others there. The garbage
    collector does not track messages, so a million waiting ones cost it nothing.
    """

    type: str
    """The event type, such as ``health.record.saved``."""
    body: bytes = b"null"
    """The event as JSON."""
    key: str | None = None
    """What ``ordered_by_key`` consumers order by."""
    priority: int = DEFAULT_PRIORITY
    """0 to 9; higher is handled first."""
    headers: dict[str, str] = {}
    """Writable until the message is published."""
    delay: float = 0.0
    """Seconds to wait before any consumer may see it."""
    time_ns: int = msgspec.field(default_factory=time.time_ns)
    """When it was made, in nanoseconds since 1970."""
    id: str = msgspec.field(default_factory=_new_id_now)
    """A UUIDv7, the same for every consumer and every attempt."""
    attempt: int = 1
    """Which attempt of this consumer this is; counts from 1."""
    decode: Callable[[Message[Any]], Any] = decode_plain
    """Reads ``body``; internal, set for each delivery."""
    decoded: list[Any] | None = None
    """Holds the data of a delivery once it has been read; internal."""

    @property
    def time(self) -> datetime:
        """When the message was made, in UTC."""
        return datetime.fromtimestamp(self.time_ns / 1e9, UTC)

    @property
    def data(self) -> E:
        """The decoded event; in a handler, decoded at the first look and kept.

        Raises DecodeError if the body is not JSON or does not fit its Event class.
        """
        if self.decoded is None:  # nobody's delivery: a list for each would be tracked
            return self.decode(self)  # type: ignore[no-any-return]
        if not self.decoded:
            self.decoded.append(self.decode(self))
        return self.decoded[0]  # type: ignore[no-any-return]

    def for_delivery(
        self, attempt: int, decode: Callable[[Message[Any]], Any]
    ) -> Message[E]:
        """Return a copy for one delivery, with headers and data of its own."""
        return Message(
            self.type,
            self.body,
            self.key,
            self.priority,
            self.headers.copy(),
            self.delay,
            self.time_ns,
            self.id,
            attempt,
            decode,
            [],
        )


def validate(message: Message[Any], *, max_body_bytes: int) -> None:
    """Raise a MessageError if the message breaks a limit; cheap for a plain one."""
    if message.body.__class__ is not bytes:
        raise MessageError("body must be bytes of JSON.", event=message.type)
    if len(message.body) > max_body_bytes:
        raise MessageTooLargeError(
            f"The body has {len(message.body)} bytes, the limit is {max_body_bytes}: "
            "emit an id and let the handler load the rest, or raise "
            "GOMQ['MAX_BODY_BYTES'].",
            event=message.type,
        )
    if message.key is not None:
        _validate_key(message)
    if message.headers or message.headers.__class__ is not dict:
        _validate_headers(message)
    # Exactly int: 5.0 is equal to 5, but no index.
    if message.priority.__class__ is not int or message.priority not in PRIORITIES:
        raise MessageError(
            f"priority is {message.priority!r}, not 0 to 9.", event=message.type
        )
    if message.delay and not _is_duration(message.delay):
        raise MessageError(
            f"delay is {message.delay!r}, not seconds from now.", event=message.type
        )


def validate_type(event_type: str) -> str:
    """Return the event type, or raise ConfigurationError if it is not one."""
    is_short_text = isinstance(event_type, str) and len(event_type) <= MAX_TYPE_LENGTH
    if is_short_text and _EVENT_TYPE.fullmatch(event_type):
        return event_type
    raise ConfigurationError(
        f"{event_type!r:.220} is not an event type: write lower-case segments of "
        f"a-z, 0-9 and _ with dots between them, up to {MAX_TYPE_LENGTH} characters, "
        "such as 'health.record.saved'."
    )


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value < _FOREVER


def _validate_key(message: Message[Any]) -> None:
    key = message.key
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
        raise MessageError(
            f"key must be a text of 1 to {MAX_KEY_LENGTH} characters.",
            event=message.type,
        )
    if not key.isprintable():
        raise MessageError("key has characters to escape.", event=message.type)


def _validate_headers(message: Message[Any]) -> None:
    headers = message.headers
    if not isinstance(headers, dict):
        raise MessageError("headers must be a dict.", event=message.type)
    if len(headers) > MAX_HEADERS:
        raise MessageTooLargeError(
            f"{len(headers)} headers, the limit is {MAX_HEADERS}.", event=message.type
        )
    size = 0
    for name, value in headers.items():
        if not isinstance(value, str) or not isinstance(name, str):
            raise MessageError("headers must be str to str.", event=message.type)
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise MessageError(
                f"header {name!r:.120} has characters that no header may have.",
                event=message.type,
            )
        size += len(name) + len(value.encode(errors="surrogatepass"))
    if size > MAX_HEADER_BYTES:
        raise MessageTooLargeError(
            f"headers have {size} bytes, the limit is {MAX_HEADER_BYTES}.",
            event=message.type,
        )
