"""The message: one frozen envelope that carries one event."""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, NoReturn, Protocol

import msgspec
from msgspec.structs import force_setattr
from typing_extensions import TypeVar

from .errors import ConfigurationError, DecodeError, MessageError, MessageTooLargeError
from .process.fork import current

E = TypeVar("E", default=Any)  # so that a bare Message needs no brackets

DEFAULT_PRIORITY: Final = 5
MAX_PRIORITY: Final = 9
PRIORITIES: Final = range(MAX_PRIORITY + 1)
MAX_TYPE_LENGTH: Final = 200
MAX_KEY_LENGTH: Final = 200
MAX_HEADERS: Final = 32
MAX_HEADER_BYTES: Final = 4096  # all names and values of one message together

_EVENT_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_JSON = msgspec.json.Decoder()
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


# A UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 bits that a
# process draws once and counts up (section 6.2, method 2), so that its ids sort in the
# order in which they were made. Only the last 48 bits ever change. Counting costs 25 ns
# and every message does it; the text costs 400 ns and is made for those who look.
_next_number: Final = itertools.count(int.from_bytes(os.urandom(6)) >> 1).__next__


def _text_of(made: float, number: int) -> str:
    ms, drawn = int(made * 1000), current().drawn
    high, low = drawn >> 20 & 0xFFF, 0x8000 | drawn & 0x3FFF
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{high:03x}-{low:04x}-{number:012x}"


def decode_plain(message: Message[Any]) -> Any:
    """Decode the body as plain JSON; raises DecodeError."""
    try:
        return _JSON.decode(message.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(
            f"The body is not JSON: {error}", event=message.type
        ) from None


class _NoHeaders(dict[str, str]):
    """The headers of all messages that have none: one dict less for each message."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("Headers are read-only: give them to Message(headers={...}).")

    __setitem__ = __ior__ = setdefault = update = _refuse

    def __deepcopy__(self, memo: Any) -> _NoHeaders:
        return self


NO_HEADERS: Final = _NoHeaders()


class TraceContext(Protocol):
    """What an observer has a message carry through a process in the place of headers.

    Thread-safe: all consumers of a message share it.
    """

    def write(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return these headers with those that name the trace; never raises."""
        ...


class MessageMeta(msgspec.StructMeta):
    """Lets ``isinstance(x, Message)`` hold for what handlers get, too."""

    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805 - a metaclass
        """Whether the object reads as a message."""
        return getattr(type(instance), "reads_as_message", False)


class Message(
    msgspec.Struct, Generic[E], frozen=True, eq=False, gc=False, metaclass=MessageMeta
):
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
    headers: dict[str, str] = NO_HEADERS
    """Read-only; ``add_headers`` adds to them."""
    delay: float = 0.0
    """Seconds to wait before any consumer may see it."""
    made: float = msgspec.field(default_factory=time.time)
    """When it was made, in seconds since 1970."""
    number: int | str = msgspec.field(default_factory=_next_number)
    """What its id is made of, or the id itself if it was made elsewhere."""
    trace_context: TraceContext | None = None
    """Private to the hook that set it; left behind where a message is pickled."""

    reads_as_message: ClassVar[bool] = True

    @property
    def id(self) -> str:
        """A UUIDv7, the same for every consumer and every attempt."""
        number = self.number
        return number if isinstance(number, str) else _text_of(self.made, number)

    @property
    def time(self) -> datetime:
        """When the message was made, in UTC."""
        return datetime.fromtimestamp(self.made, UTC)

    # A message reads as its own first delivery, as nothing more is to be said of that.

    @property
    def message(self) -> Message[E]:
        """Itself."""
        return self

    @property
    def available(self) -> float:
        """When it could be handled first, in seconds of ``time.monotonic()``."""
        return self.made + self.delay - time.time() + time.monotonic()

    @property
    def attempt(self) -> int:
        """Which attempt of a consumer this is; counts from 1."""
        return 1

    @property
    def deliveries(self) -> int:
        """How often a server has handed it out."""
        return 1

    @property
    def token(self) -> None:
        """Nothing to settle by."""
        return

    def __reduce__(self) -> tuple[Any, ...]:
        # With its text: another process would make another id of the number.
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        fields |= {"number": self.id, "trace_context": None}
        return Message, tuple(fields.values())

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers, or replace some; only before the message is published."""
        force_setattr(self, "headers", {**self.headers, **headers})

    @property
    def data(self) -> E:
        """The decoded event; in a handler, decoded at the first look and kept.

        Raises DecodeError if the body is not JSON or does not fit its Event class.
        """
        return decode_plain(self)  # type: ignore[no-any-return]


def validate(message: Message[Any], *, max_body_bytes: int) -> None:
    """Raise a MessageError if the message breaks a limit; cheap for a plain one."""
    if message.body.__class__ is not bytes:
        raise MessageError("body must be bytes of JSON.", event=message.type)
    if len(message.body) > max_body_bytes:
        raise too_large(message.type, message.body, max_body_bytes)
    if message.key is not None:
        _validate_key(message)
    if message.headers is not NO_HEADERS:
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


def too_large(event_type: str, body: bytes, limit: int) -> MessageTooLargeError:
    """Return the error for a body above the limit, in bytes."""
    return MessageTooLargeError(
        f"The body has {len(body)} bytes, the limit is {limit}: emit an id and let the "
        "handler load the rest, or raise GOMQ['MAX_BODY_BYTES'].",
        event=event_type,
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
    # An int may be finite and yet no float.
    return isinstance(value, int | float) and 0.0 <= value <= sys.float_info.max


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
