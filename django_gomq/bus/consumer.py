"""The consumer: one registration, with its options and its handler, checked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict

import msgspec

from .codec import Decode, decode_as
from .delivery import DropReason
from .errors import ConfigurationError
from .event import EventMeta
from .message import decode_plain, validate_type
from .patterns import Pattern
from .retry import NO_RETRY, Retry

Handler = Callable[[Any], Any]


def callable_of(handler: Any, consumer: str) -> Handler:
    """Return what is called with each message: a function, or handle() of an object.

    A class is made, without arguments. Raises ConfigurationError for anything else.
    """
    if inspect.isclass(handler):
        handler = _instance_of(handler, consumer)
    handle = getattr(handler, "handle", None)
    if callable(handle):
        return handle  # type: ignore[no-any-return]
    if inspect.isroutine(handler) or callable(handler):
        return handler  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"Consumer {consumer!r}: {handler!r} is no function and has no handle().",
        consumer=consumer,
    )


def _instance_of(handler_class: type, consumer: str) -> Any:
    if not callable(getattr(handler_class, "handle", None)):
        raise ConfigurationError(
            f"Consumer {consumer!r}: class {handler_class.__qualname__} has no "
            "handle(self, message).",
            consumer=consumer,
        )
    try:
        return handler_class()
    except TypeError as error:
        raise ConfigurationError(
            f"Consumer {consumer!r}: class {handler_class.__qualname__} cannot be made "
            f"without arguments: {error}",
            consumer=consumer,
        ) from error


Overflow = Literal["drop_newest", "drop_oldest", "backpressure"]
OVERFLOWS: Final = ("drop_newest", "drop_oldest", "backpressure")
Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final = ("info", "warning", "critical")


class ConsumerOptions(TypedDict, total=False):
    """The options of ``@consumer``, for type checkers; see Consumer for each."""

    concurrency: int
    capacity: int
    overflow: Overflow
    retry: Retry
    timeout: float | None
    max_age: float | None
    batch: int | None
    linger: float
    atomic: bool | str
    ordered_by_key: bool
    severity: Severity
    enabled: bool


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
    ordered_by_key: bool = False
    severity: Severity = "warning"
    """How grave it is for alerts when it misses or gives up on a message."""
    enabled: bool = True

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ConfigurationError(
                f"Consumer {self.name!r}: {problem}", consumer=str(self.name)
            )

    def _problems(self) -> list[str]:
        found = [*self._identity_problems(), *self._number_problems()]
        if self.overflow not in OVERFLOWS:
            found.append(f"overflow is {self.overflow!r}, not one of {OVERFLOWS}.")
        if self.severity not in SEVERITIES:
            found.append(f"severity is {self.severity!r}, not one of {SEVERITIES}.")
        if not isinstance(self.retry, Retry):
            found.append(f"retry is {self.retry!r}, not a Retry(...).")
        if self.linger and self.batch is None:
            found.append("linger needs batch.")
        if self.ordered_by_key and self.batch is not None:
            found.append("ordered_by_key and batch exclude each other.")
        if self.atomic and self.is_async:
            found.append("atomic needs a sync handler: there are no async ones.")
        if self.batch is not None and self.is_async:
            found.append("batch needs a sync handler.")
        return found

    def _identity_problems(self) -> list[str]:
        found = []
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            found.append("a name has letters, digits, and _ . : - inside, 200 at most.")
        if not self.types:
            found.append("it names no event type.")
        if not callable(self.handler):
            found.append(f"{self.handler!r} cannot be called.")
        return found

    def _number_problems(self) -> list[str]:
        found = []
        for option in ("concurrency", "capacity", "batch"):
            value = getattr(self, option)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            may_miss = value is None and option == "batch"
            if not may_miss and not (is_whole and value >= 1):
                found.append(f"{option} is {value!r}, not a whole number from 1.")
        for option in ("timeout", "max_age", "linger"):
            value = getattr(self, option)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_finite = is_number and 0 <= value < float("inf")
            may_miss = value == 0 if option == "linger" else value is None
            if not may_miss and not (is_finite and value > 0):
                found.append(f"{option} is {value!r}, not seconds.")
        return found

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function."""
        call = getattr(self.handler, "__call__", None)  # noqa: B004
        return inspect.iscoroutinefunction(self.handler) or (
            inspect.iscoroutinefunction(call)
        )

    @property
    def drop_reasons(self) -> tuple[DropReason, ...]:
        """Every reason for which these options can drop a message."""
        reasons = []
        if self.overflow == "drop_newest":
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
) -> Consumer:
    """Build a consumer of a function, a method, or a class or object with handle().

    Raises ConfigurationError for a type, pattern, option or handler that is none.
    """
    check_options(name, options)
    names: list[str] = []
    decoders: dict[str, Decode] = {}
    for item in types:
        if isinstance(item, EventMeta):
            names.append(_type_of(item, name))
            decoders[item.__event_type__] = decode_as(item)
        else:
            names.append(Pattern(item).text)
    return Consumer(
        name=name,
        types=tuple(dict.fromkeys(names)),
        handler=callable_of(handler, name),
        decoders=decoders,
        **options,
    )


def _type_of(event_class: EventMeta, consumer: str) -> str:
    if not event_class.__event_type__:
        raise ConfigurationError(
            f"Consumer {consumer!r}: {event_class.__qualname__} names no type: write "
            f'class {event_class.__name__}(Event, type="...").',
            consumer=consumer,
        )
    return validate_type(event_class.__event_type__)
