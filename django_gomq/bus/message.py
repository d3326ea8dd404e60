"""The message: one frozen envelope that carries one event."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, NoReturn, Protocol

import msgspec
from msgspec.structs import force_setattr
from typing_extensions import TypeVar

from .durations import SECONDS_OR_TIMEDELTA, seconds_of
from .errors import (
    ConfigurationError,
    DecodeError,
    MessageError,
    MessageTooLargeError,
    class_name,
)
from .process.clock import Clock
from .process.fork import current

# With a default, so that a bare Message needs no brackets. A handler of a base class
# of events takes messages of any of them.
E_co = TypeVar("E_co", covariant=True, default=Any)

DEFAULT_PRIORITY: Final = 5
MAX_PRIORITY: Final = 9
PRIORITIES: Final = range(MAX_PRIORITY + 1)
MAX_TYPE_LENGTH: Final = 200
MAX_KEY_LENGTH: Final = 200
MAX_HEADERS: Final = 32
MAX_HEADER_BYTES: Final = 4096  # all names and values of one message together
MAX_ID_LENGTH: Final = 200

CAUSATION: Final = "causationid"
"""The header with the id of the message in whose handler this one was emitted."""
CORRELATION: Final = "correlationid"
"""The header with an id that all messages of one cause have in common."""

_EVENT_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_JSON = msgspec.json.Decoder()
# Controls, ends of lines and halves of surrogate pairs: no header may have them, and no
# attribute of a CloudEvent.
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


# A UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 bits that a
# process draws once and counts up (section 6.2, method 2), so that its ids sort in the
# order in which they were made. Only the last 48 bits ever change. Counting costs 25 ns
# and every message does it; the text costs 400 ns and is made for those who look.
_next_number: Final = itertools.count(int.from_bytes(os.urandom(6)) >> 1).__next__


def _text_of(made: float, number: int) -> str:
    ms = f"{int(made * 1000):012x}"
    return f"{ms[:8]}-{ms[8:]}-{_middle_of(current().drawn)}-{number:012x}"


@functools.lru_cache(1)  # the same as long as the process lives
def _middle_of(drawn: int) -> str:
    return f"7{drawn >> 20 & 0xFFF:03x}-{0x8000 | drawn & 0x3FFF:04x}"


def decode_plain(message: Message[Any]) -> Any:
    """Decode the body as plain JSON; raises DecodeError."""
    try:
        return _JSON.decode(message.body)
    except TypeError:
        raise DecodeError(_no_bytes(message), event=message.type) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(
            f"The body is not JSON: {error}", event=message.type
        ) from None


def _no_bytes(message: Message[Any]) -> str:
    return (
        f"body must be bytes of JSON, and is of the class {class_name(message.body)}: "
        "emit() makes them of an event, and in a test of a handler "
        "django_gomq.testing.call(handler, event) does."
    )


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
    msgspec.Struct,
    Generic[E_co],
    frozen=True,
    eq=False,
    gc=False,
    metaclass=MessageMeta,
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
    """Seconds before any consumer may see it; a timedelta is made that at publish."""
    made: float = msgspec.field(default_factory=time.time)
    """When it was made, in seconds since 1970."""
    number: int | str = msgspec.field(default_factory=_next_number)
    """What its id is made of, or the id itself if it was made elsewhere."""
    trace_context: TraceContext | None = None
    """Private to the hook that set it; left behind where a message is pickled."""
    made_here: float = msgspec.field(default_factory=Clock.monotonic)
    """When it came to be in this process, in seconds of ``Clock.monotonic()``."""

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

    @property
    def causation_id(self) -> str | None:
        """The id of the message in whose handler this was emitted; None outside of one.

        It travels as the header ``causationid``.
        """
        return self.headers.get(CAUSATION)

    @property
    def correlation_id(self) -> str | None:
        """The id that it has in common with all that came of one message.

        That of the first of them, unless its emitter gave another. None for a message
        that was emitted outside of handlers without one. It travels as the header
        ``correlationid``.
        """
        return self.headers.get(CORRELATION)

    # A message reads as its own first delivery, as nothing more is to be said of that.

    @property
    def message(self) -> Message[E_co]:
        """Itself."""
        return self

    @property
    def available(self) -> float:
        """When it could be handled first, in seconds of ``Clock.monotonic()``."""
        return Clock.monotonic() - self.age + self.delay

    @property
    def age(self) -> float:
        """Seconds since it was made; by the wall clock if that was elsewhere."""
        if isinstance(self.number, int):
            return Clock.monotonic() - self.made_here
        return time.time() - self.made

    @property
    def attempt(self) -> int:
        """Which attempt of a consumer this is; counts from 1."""
        return 1

    @property
    def deliveries(self) -> int:
        """How often a server has handed it out."""
        return 1

    @property
    def postponed(self) -> int:
        """How often a handler has asked for it again."""
        return 0

    @property
    def first_failed(self) -> None:
        """No attempt has failed."""
        return

    @property
    def token(self) -> None:
        """Nothing to settle by."""
        return

    def __repr__(self) -> str:
        """Name the message, and never its data, key or headers."""
        is_text = isinstance(self.type, str)
        kind = str.__str__(self.type) if is_text else class_name(self.type)
        return f"<Message {kind} {self.id} attempt {self.attempt}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Name it where rich shows the locals of a traceback."""
        return [("type", self.type), ("id", self.id), ("attempt", self.attempt)]

    def __reduce__(self) -> tuple[Any, ...]:
        # With its text: another process would make another id of the number.
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        fields |= {"number": self.id, "trace_context": None}
        del fields["made_here"]
        return Message, tuple(fields.values())

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers, or replace some; only before the message is published."""
        force_setattr(self, "headers", {**self.headers, **headers})

    @property
    def data(self) -> E_co:
        """The decoded event; in a handler, decoded at the first look and kept.

        Raises DecodeError if the body is not JSON or does not fit its Event class.
        """
        return decode_plain(self)  # type: ignore[no-any-return]


def validate(message: Message[Any], *, max_body_bytes: int) -> None:
    """Raise a MessageError if the message breaks a limit; cheap for a plain one.

    A delay that is a timedelta is made seconds, and a priority of an enum its number.
    """
    if message.body.__class__ is not bytes:
        raise MessageError(f"{message.type}: {_no_bytes(message)}", event=message.type)
    if len(message.body) > max_body_bytes:
        raise too_large(message.type, message.body, max_body_bytes)
    if message.key is not None:
        _validate_key(message)
    if message.headers is not NO_HEADERS:
        _validate_headers(message)
    if message.priority.__class__ is not int or message.priority not in PRIORITIES:
        _read_priority(message)
    if message.delay.__class__ is not float or not 0.0 <= message.delay < math.inf:
        _read_delay(message)


def is_id(text: object) -> bool:
    """Whether this may be the id of a message: 1 to 200 characters that print."""
    return (
        isinstance(text, str) and 0 < len(text) <= MAX_ID_LENGTH and text.isprintable()
    )


def too_large(event_type: str, body: bytes, limit: int) -> MessageTooLargeError:
    """Return the error for a body above the limit, in bytes."""
    return MessageTooLargeError(
        f"{event_type}: the body has {len(body)} bytes, the limit is {limit}: emit an "
        "id and let the handler load the rest, or raise GOMQ['MAX_BODY_BYTES'].",
        event=event_type,
    )


def validate_type(event_type: str) -> str:
    """Return the event type, or raise ConfigurationError if it is not one."""
    is_short_text = isinstance(event_type, str) and len(event_type) <= MAX_TYPE_LENGTH
    if is_short_text and _EVENT_TYPE.fullmatch(event_type):
        return str.__str__(event_type)  # of a member of an enum its value
    # What is no text may be an event, or data of one: these are in no error.
    shown = repr(event_type)[: MAX_TYPE_LENGTH + 20]
    if not isinstance(event_type, str | int | None):
        shown = f"A value of the class {class_name(event_type)}"
    raise ConfigurationError(
        f"{shown} is not an event type: write lower-case segments of "
        f"a-z, 0-9 and _ with dots between them, up to {MAX_TYPE_LENGTH} characters, "
        "such as 'health.record.saved'."
    )


def _read_priority(message: Message[Any]) -> None:
    given: object = message.priority
    # Not 5.0, which is equal to 5 but no index, and not True.
    if isinstance(given, bool) or not isinstance(given, int) or given not in PRIORITIES:
        raise MessageError(
            f"{message.type}: priority is {given!r:.120}, not 0 to {MAX_PRIORITY}.",
            event=message.type,
        )
    force_setattr(message, "priority", operator.index(given))


def _read_delay(message: Message[Any]) -> None:
    seconds = seconds_of(message.delay)
    if seconds is None:
        raise MessageError(
            f"{message.type}: "
            f"delay is {message.delay!r:.120}, not {SECONDS_OR_TIMEDELTA}.",
            event=message.type,
        )
    force_setattr(message, "delay", seconds)


def _validate_key(message: Message[Any]) -> None:
    key = message.key
    if not isinstance(key, str):
        raise MessageError(
            f"{message.type}: "
            f"key must be a text of 1 to {MAX_KEY_LENGTH} characters, and is of the "
            f"class {class_name(key)}: pass str() of it.",
            event=message.type,
        )
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise MessageError(
            f"{message.type}: "
            f"key must be a text of 1 to {MAX_KEY_LENGTH} characters, and has "
            f"{len(key)}.",
            event=message.type,
        )


def _validate_headers(message: Message[Any]) -> None:
    headers = message.headers
    if not isinstance(headers, dict):
        raise MessageError(
            f"{message.type}: headers must be a dict.",
            event=message.type,
        )
    # The bus adds the two ids where a handler emits: so no limit of its caller's counts
    # them.
    count = len(headers) - (CAUSATION in headers) - (CORRELATION in headers)
    if count > MAX_HEADERS:
        raise MessageTooLargeError(
            f"{message.type}: {count} headers, the limit is {MAX_HEADERS}.",
            event=message.type,
        )
    size = 0
    for name, value in headers.items():
        if not isinstance(value, str) or not isinstance(name, str):
            raise MessageError(
                f"{message.type}: "
                f"header {name!r:.120} is {class_name(name)} to {class_name(value)}; "
                "headers are str to str: pass str() of it.",
                event=message.type,
            )
        if not _HEADER_NAME.fullmatch(name) or _UNSPEAKABLE.search(value):
            raise MessageError(
                f"{message.type}: "
                f"header {name!r:.120} has characters that no header may have.",
                event=message.type,
            )
        if name in (CAUSATION, CORRELATION):
            _validate_id(message, name, value)
        else:
            size += len(name) + len(value.encode(errors="surrogatepass"))
    if size > MAX_HEADER_BYTES:
        raise MessageTooLargeError(
            f"{message.type}: "
            f"headers have {size} bytes, the limit is {MAX_HEADER_BYTES}.",
            event=message.type,
        )


def _validate_id(message: Message[Any], name: str, value: str) -> None:
    if not is_id(value):
        raise MessageError(
            f"{message.type}: header {name!r} is no id of 1 to {MAX_ID_LENGTH} "
            "characters that print.",
            event=message.type,
        )
