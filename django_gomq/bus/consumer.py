"""The consumer: one registration, with its options and its handler, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypedDict

import msgspec
from msgspec.structs import force_setattr

from .data.codec import Decode, decode_as
from .declarations.handler import (
    Handler,
    callable_of,
    expected_events,
    is_async,
    problem_with,
)
from .delivery import DropReason
from .durations import seconds_of
from .errors import ConfigurationError, DecodeError
from .event import Event, EventMeta
from .message import decode_plain
from .patterns import Pattern
from .retry import NO_RETRY, Retry
from .wire import WireMessage

MAX_CAPACITY: Final = 10_000_000
"""Of queues and channels: what waits is in memory, and its places are made before."""
MAX_CONCURRENCY: Final = 100_000
"""Messages of one consumer that a process has in work at once."""

Overflow = Literal["drop_newest", "drop_oldest", "backpressure", "spill"]
OVERFLOWS: Final = ("drop_newest", "drop_oldest", "backpressure", "spill")
Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final = ("info", "warning", "critical")
Start = Literal["now", "earliest"]
STARTS: Final = ("now", "earliest")


class SingleOptions(TypedDict, total=False):
    """The options of ``@consumer`` but for ``batch``, which is about what it hands."""

    concurrency: int
    capacity: int
    overflow: Overflow
    retry: Retry
    timeout: float | timedelta | None
    max_age: float | timedelta | None
    linger: float | timedelta
    atomic: bool | str
    idempotent: bool
    ordered_by_key: bool
    severity: Severity
    enabled: bool
    start: Start
    aliases: Sequence[str]


class ConsumerOptions(SingleOptions, total=False):
    """The options of ``@consumer``, for type checkers; see Consumer for each."""

    batch: int | None


OPTIONS: Final = frozenset(ConsumerOptions.__annotations__)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}")


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A registration: stable name, event types, options, handler."""

    name: str
    types: tuple[str, ...]
    """Event types and patterns."""
    handler: Handler
    """The function or method that is called with a message, or a list of them."""
    decoders: Mapping[str, Decode] = msgspec.field(default_factory=dict)
    """How to decode the types that were named by an Event class."""
    versions: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Those of these Event classes."""
    concurrency: int = 1
    """How many deliveries are in work at once in this process; a limit, no threads."""
    capacity: int = 1000
    """How many messages may wait, be scheduled or be in work in this process."""
    overflow: Overflow = "drop_newest"
    retry: Retry = NO_RETRY
    timeout: float | None = None
    """Seconds; an async handler is cancelled, a sync one reported."""
    max_age: float | None = None
    """Seconds since emit, or since the end of its delay, after which it is dropped."""
    batch: int | None = None
    """The handler takes a list of up to this many messages."""
    linger: float = 0.0
    """Seconds to wait for a batch to fill."""
    atomic: bool | str = False
    """Run the handler in a transaction, of this database alias if a name is given."""
    idempotent: bool = False
    """Run it in a transaction of the broker's database, and what was committed once not
    again."""
    ordered_by_key: bool = False
    severity: Severity = "warning"
    """How grave it is for alerts when it misses or gives up on a message."""
    enabled: bool = True
    start: Start = "now"
    """Where a new one begins: at what is emitted from then on, or at kept history."""
    aliases: tuple[str, ...] = ()
    """Names that it had before."""
    is_named: bool = True
    """Whether its name was written; else it is that of the function."""

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ConfigurationError(
                f"Consumer {self.name!r}: {problem}", consumer=str(self.name)
            )

    def _problems(self) -> list[str]:
        found = [
            *self._identity_problems(),
            *self._number_problems(),
            *self._choice_problems(),
        ]
        if self.linger and self.batch is None:
            found.append("linger needs batch.")
        if self.ordered_by_key and self.batch is not None:
            found.append("ordered_by_key and batch exclude each other.")
        if self.atomic and self.is_async:
            found.append("atomic needs a sync handler: there are no async ones.")
        if self.idempotent and self.is_async:
            found.append(
                "idempotent needs a sync handler, as a transaction of Django cannot be "
                "held over an await: write 'def', and call async code in it by "
                "async_to_sync."
            )
        if self.idempotent and self.atomic:
            found.append(
                "idempotent has a transaction of its own, that of the broker's "
                "database: leave atomic out."
            )
        if self.batch is not None and self.is_async:
            found.append("batch needs a sync handler.")
        return found

    def _choice_problems(self) -> list[str]:
        found = []
        if self.overflow not in OVERFLOWS:
            found.append(f"overflow is {self.overflow!r}, not one of {OVERFLOWS}.")
        if self.start not in STARTS:
            found.append(f"start is {self.start!r}, not one of {STARTS}.")
        if self.severity not in SEVERITIES:
            found.append(f"severity is {self.severity!r}, not one of {SEVERITIES}.")
        if not isinstance(self.retry, Retry):
            found.append(f"retry is {self.retry!r}, not a Retry(...).")
        for option in ("idempotent", "ordered_by_key", "enabled"):
            value = getattr(self, option)
            if not isinstance(value, bool):
                found.append(f"{option} is {value!r}, not True or False.")
        if not isinstance(self.atomic, bool | str):
            found.append(f"atomic is {self.atomic!r}, not a bool or a database alias.")
        return found

    def _identity_problems(self) -> list[str]:
        found = []
        if not _is_name(self.name):
            found.append("a name has letters, digits, and _ . : - inside, 200 at most.")
        is_listed = isinstance(self.aliases, list | tuple)
        if not is_listed or not all(map(_is_name, self.aliases)):
            found.append(f"aliases is {self.aliases!r:.120}, not a list of names.")
        elif self.name in self.aliases:
            found.append("aliases has its own name; it is for names that it had.")
        else:
            force_setattr(self, "aliases", tuple(self.aliases))
        if not self.types:
            found.append('it names no event type: write @consumer("order.paid").')
        if not callable(self.handler):
            found.append(f"{self.handler!r} cannot be called.")
        elif (problem := problem_with(self.handler, self.batch)) is not None:
            found.append(problem)
        return found

    def _number_problems(self) -> list[str]:
        found = []
        for option in ("concurrency", "capacity", "batch"):
            value = getattr(self, option)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            may_miss = value is None and option == "batch"
            most = MAX_CONCURRENCY if option == "concurrency" else MAX_CAPACITY
            if not may_miss and not (is_whole and 1 <= value <= most):
                found.append(
                    f"{option} is {value!r:.120}, not a whole number from 1 to "
                    f"{most:,}."
                )
        for option in ("timeout", "max_age", "linger"):
            value = getattr(self, option)
            seconds = seconds_of(value)
            may_miss = seconds == 0 if option == "linger" else value is None
            if seconds:
                force_setattr(self, option, seconds)
            elif not may_miss:
                found.append(
                    f"{option} is {value!r:.120}, not seconds or a timedelta above 0."
                )
        return found

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function."""
        return is_async(self.handler)

    @property
    def drop_reasons(self) -> tuple[DropReason, ...]:
        """Every reason for which these options can drop a message."""
        reasons = []
        # A table takes no message whose body is not JSON.
        if self.overflow in ("drop_newest", "spill"):
            reasons.append(DropReason.CHANNEL_FULL)
        if self.overflow == "drop_oldest":
            # All room may be taken by messages in work, which cannot be evicted.
            reasons += [DropReason.CHANNEL_FULL, DropReason.EVICTED]
        if self.max_age is not None:
            reasons.append(DropReason.EXPIRED)
        return (*reasons, DropReason.SHUTDOWN)

    @property
    def has_patterns(self) -> bool:
        """Whether some of its types are patterns."""
        return not all(Pattern(text).is_exact for text in self.types)

    def subscribes_to(self, event_type: str) -> bool:
        """Whether this event type is one of its types, or matches a pattern of it."""
        return any(Pattern(text).matches(event_type) for text in self.types)

    def decode(self, event_type: str) -> Decode:
        """Return how this consumer decodes that type: typed data, or plain JSON."""
        return self.decoders.get(event_type, decode_plain)

    def with_options(self, options: Mapping[str, Any]) -> Consumer:
        """Return a copy with these options; a ConfigurationError names unknown ones."""
        check_options(self.name, options)
        return msgspec.structs.replace(self, **options)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if one of these is not an option of consumers."""
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise ConfigurationError(
            f"Consumer {name!r}: unknown option {', '.join(unknown)}; there are "
            f"{', '.join(sorted(OPTIONS))}.",
            consumer=name,
        )


def make_consumer(
    types: tuple[str | EventMeta, ...] | list[str | EventMeta],
    handler: Any,
    *,
    name: str,
    options: Mapping[str, Any],
    is_named: bool = True,
) -> Consumer:
    """Build a consumer of a function, a method, or a class or object with handle().

    Raises ConfigurationError for a type, pattern, option or handler that is none.
    """
    check_options(name, options)
    names: list[str] = []
    decoders: dict[str, Decode] = {}
    versions: dict[str, int] = {}
    for item in types:
        if isinstance(item, EventMeta):
            names.append(_type_of(item, name))
            decoders[item.__event_type__] = decode_as(item)
            versions[item.__event_type__] = item.__event_version__
        else:
            names.append(_pattern_of(item, name))
    made = Consumer(
        name=name,
        types=tuple(dict.fromkeys(names)),
        handler=callable_of(handler, name),
        decoders=decoders,
        versions=versions,
        is_named=is_named,
        **options,
    )
    _check_data(made, types)
    return made


def _pattern_of(item: Any, consumer: str) -> str:
    if isinstance(item, list | tuple | set | frozenset):
        listed = ", ".join(getattr(named, "__name__", repr(named)) for named in item)
        problem = f"name the types one after the other: @consumer({listed})."
    elif isinstance(item, Event):
        name = type(item).__name__
        problem = f"name the class {name} itself, and no event of it."
    elif callable(item):
        shown = getattr(item, "__qualname__", repr(item))
        problem = f"{shown} is no event type and no Event class."
    else:
        try:
            return str.__str__(Pattern(item).text)  # of an enum too
        except ConfigurationError as error:
            problem = str(error)
    raise ConfigurationError(f"Consumer {consumer!r}: {problem}", consumer=consumer)


def _check_data(
    made: Consumer, types: tuple[str | EventMeta, ...] | list[str | EventMeta]
) -> None:
    """Raise ConfigurationError if the handler expects other data than it will get."""
    expected = expected_events(made.handler)
    names = " | ".join(event.__name__ for event in expected)
    for item in types if expected else ():
        if isinstance(item, str):
            problem = (
                f"it names {item!r} by a text, which gives plain JSON data, and its "
                f"handler is annotated Message[{names}]: name the class, "
                f"@consumer({names.replace(' |', ',')})."
            )
        elif not issubclass(item, expected):
            problem = (
                f"its handler is annotated Message[{names}], and gets "
                f"Message[{item.__name__}]."
            )
        else:
            continue
        raise ConfigurationError(
            f"Consumer {made.name!r}: {problem}", consumer=made.name
        )


def _type_of(event_class: EventMeta, consumer: str) -> str:
    if not event_class.__event_type__:
        raise ConfigurationError(
            f"Consumer {consumer!r}: {event_class.__qualname__} names no type: write "
            f'class {event_class.__name__}(Event, type="...").',
            consumer=consumer,
        )
    return event_class.__event_type__


# While two versions of a site run on one server, the older one is handed events that it
# does not know: of a type that its consumer did not have, or of a newer version of an
# Event class. They wait for a process of the other.

LONGEST_DEPLOY: Final = 86_400.0
"""Seconds for which a consumer without a ``max_age`` lets such an event wait."""
SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds between two processes that try: as long as it has waited so far."""


def seconds_to_wait(consumer: Consumer, read: WireMessage) -> float | None:
    """Return for how long an event waits for other code; None: it is for this one.

    Raises DecodeError for one that nobody has read for the consumer's ``max_age``, or a
    day where it has none. Thread-safe, does not block.
    """
    problem = _problem_with(consumer, read)
    if problem is None:
        return None
    message = read.message
    age = message.age - message.delay
    longest = LONGEST_DEPLOY if consumer.max_age is None else consumer.max_age
    if age > longest:
        raise DecodeError(problem, event=message.type)
    return min(max(age, SHORTEST_WAIT), LONGEST_WAIT)


def _problem_with(consumer: Consumer, read: WireMessage) -> str | None:
    """Return why the code of this process is not that of the event, if it is not."""
    event_type = read.message.type
    if not _has(consumer.types, event_type):
        return f"{event_type}: consumer {consumer.name!r} does not name this type here."
    known = consumer.versions.get(event_type)
    if known is not None and read.version is not None and read.version > known:
        return (
            f"{event_type}: it is of version {read.version}, and the Event class has "
            f"version {known} here."
        )
    return None


@lru_cache(4096)  # a process has few consumers, and sees the same types all the time
def _has(types: Sequence[str], event_type: str) -> bool:
    return any(Pattern(text).matches(event_type) for text in types)
