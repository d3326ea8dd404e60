"""The consumers that a program declared, by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypeVar, Unpack, overload

import msgspec

from .consumer import (
    OPTIONS,
    Consumer,
    ConsumerOptions,
    SingleOptions,
    make_consumer,
)
from .declarations.source import Source
from .errors import ConfigurationError
from .event import Event, EventMeta
from .message import Message
from .process.fork import current
from .process.housekeeping import write_log

logger = logging.getLogger("gomq.registry")

F = TypeVar("F")
R = TypeVar("R")
E = TypeVar("E", bound=Event)
A = TypeVar("A")


class Handling(Protocol):
    """The class form of a handler, or an object of it."""

    def handle(self, argument: Any, /) -> object:
        """Handle one message, or a list of them."""
        ...


H = TypeVar("H", bound=Handling)


class Decorate(Protocol[A]):
    """``@consumer(...)`` to a type checker: it takes handlers of this argument."""

    @overload
    def __call__(self, handler: type[H], /) -> type[H]: ...
    @overload
    def __call__(self, handler: H, /) -> H: ...
    @overload
    def __call__(self, handler: Callable[[A], R], /) -> Callable[[A], R]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Register the handler, and return it unchanged."""


def label_of_module(module: str) -> str:
    """Return the package of a module: ``shop`` for ``site.shop.consumers``."""
    parts = module.split(".")
    return parts[-2] if len(parts) > 1 else parts[0]


class _Decorator:
    """Registers the handler that it is called with; a WARNING if it never was."""

    def __init__(self, register: Callable[[Any], None], frame: FrameType) -> None:
        self._is_used = False
        self._register = register
        self._place = f"{frame.f_code.co_filename}, line {frame.f_lineno}"

    def __call__(self, handler: F) -> F:
        self._is_used = True
        self._register(handler)
        return handler

    def __del__(self) -> None:
        if not self._is_used:
            write_log(
                logger,
                logging.WARNING,
                "consumer(...) in %s was given no handler, and registers nothing: "
                "write @consumer(...) above a function",
                self._place,
            )


class Registration(msgspec.Struct, frozen=True, eq=False):
    """A consumer, and where in the code it was declared, if that is known."""

    consumer: Consumer
    source: Source | None = None

    def is_again(self, other: Registration) -> bool:
        """Whether this is the other one once more, as when a module is reloaded."""
        mine, others = self.source, other.source
        if mine is None or others is None or not mine.has_name_of(others):
            return False
        if mine.is_executed_again(others):
            return True
        return mine.is_same_handler(others) and self._is_alike(other)

    def _is_alike(self, other: Registration) -> bool:
        names = ("types", *OPTIONS)
        mine, others = self.consumer, other.consumer
        return all(getattr(mine, name) == getattr(others, name) for name in names)

    def conflict_with(self, taken: Registration) -> ConfigurationError:
        """Return the error that says what has this name already, and what to do."""
        name, mine, old = self.consumer.name, self.source, taken.source
        if mine is None or old is None or not mine.has_name_of(old):
            places = f"{old or taken.consumer} and {mine or self.consumer}"
        elif mine.is_same_handler(old):
            types = dict.fromkeys((*taken.consumer.types, *self.consumer.types))
            listed = ", ".join(map(repr, types))
            return ConfigurationError(
                f"Consumer {name!r} is declared twice for one handler, {mine}: name "
                f"all its types and options at once, @consumer({listed}), or give each "
                "another name=.",
                consumer=name,
            )
        elif mine.is_same_line(old):
            places = f"both {mine}, as in a loop"
        else:
            places = f"{old} and {mine}"
        return ConfigurationError(
            f"Two consumers are named {name!r}: {places}. Names are stable ids: give "
            "one of them another name=.",
            consumer=name,
        )


class Registry:
    """Consumers by name, in the order of registration.

    Registering is thread-safe: two requests may be the first to import two modules.
    """

    def __init__(self) -> None:
        self._registered: dict[str, Registration] = {}
        self.label_of: Callable[[str], str] = label_of_module
        """Gives the first part of a default name, by the handler's module."""
        self.on_added: Callable[[Consumer, bool], None] | None = None
        """Is handed what is registered from then on, and whether it was there before.

        What it raises undoes the registration.
        """

    def register(self, consumer: Consumer, *, source: Source | None = None) -> Consumer:
        """Add a consumer; raises ConfigurationError if its name is taken.

        A handler that is registered again from the same place, as when a module is
        reloaded, takes the place of the old one.
        """
        registration = Registration(consumer, source)
        with current().lock:
            taken = self._registered.get(consumer.name)
            if taken is not None and not registration.is_again(taken):
                raise registration.conflict_with(taken)
            before = self._registered
            self._registered = {**before, consumer.name: registration}
            if self.on_added is not None:
                try:
                    self.on_added(consumer, taken is not None)
                except ConfigurationError:
                    self._registered = before
                    raise
        return consumer

    @overload
    def consumer(
        self,
        event: type[E],
        /,
        *,
        name: str | None = None,
        batch: None = None,
        **options: Unpack[SingleOptions],
    ) -> Decorate[Message[E]]: ...
    @overload
    def consumer(
        self,
        event: type[E],
        /,
        *,
        batch: int,
        name: str | None = None,
        **options: Unpack[SingleOptions],
    ) -> Decorate[list[Message[E]]]: ...
    @overload
    def consumer(
        self,
        *types: str | EventMeta,
        name: str | None = None,
        batch: None = None,
        **options: Unpack[SingleOptions],
    ) -> Decorate[Message[Any]]: ...
    @overload
    def consumer(
        self,
        *types: str | EventMeta,
        batch: int,
        name: str | None = None,
        **options: Unpack[SingleOptions],
    ) -> Decorate[list[Message[Any]]]: ...
    def consumer(
        self,
        *types: str | EventMeta,
        name: str | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> Callable[[F], F]:
        """Return a decorator that registers a handler and returns it unchanged.

        ``types`` are event types, patterns such as ``"health.*"``, and Event classes,
        whose data are typed. The handler is called with one message, or a list of them
        for ``batch``. Options, with their defaults:

        name="<app>.<function>" -- a stable id
        concurrency=1 -- deliveries in work at once, in a process
        capacity=1000 -- messages that may wait or be in work, in a process
        overflow="drop_newest" -- or "drop_oldest", "backpressure"
        retry=Retry(attempts=1) -- when an exception is tried again
        timeout=None -- seconds; an async handler is cancelled, a sync one reported
        max_age=None -- seconds after which a message is dropped
        batch=None -- the handler takes a list of up to so many messages
        linger=0.0 -- seconds to wait for a batch to fill
        atomic=False -- a transaction around the handler; or the alias of its database
        idempotent=False -- what it did in the broker's database is done once
        ordered_by_key=False -- messages of one key one after the other
        severity="warning" -- or "info", "critical": how grave a loss is, for alerts
        enabled=True -- False: nothing reaches it
        start="now" -- or "earliest": a new one gets what a durable broker has kept
        aliases=() -- names that it had before, at a durable broker

        Raises ConfigurationError, when the module is imported, for wrong types, options
        or handlers, and for a name that is taken.
        """
        for item in types:
            if callable(item) and not isinstance(item, EventMeta):
                raise _no_type(item)

        def register(handler: Any) -> None:
            source = Source.of(handler)
            short = getattr(handler, "__name__", repr(handler))
            self.register(
                make_consumer(
                    types,
                    handler,
                    name=name or f"{self.label_of(source.module)}.{short}",
                    options=options,
                    is_named=name is not None,
                ),
                source=source,
            )

        return _Decorator(register, sys._getframe(1))  # noqa: SLF001 - documented

    def consumers(
        self, overrides: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Consumer]:
        """Return all consumers, each with the options that ``overrides`` gives it.

        Raises ConfigurationError for an override of a consumer that does not exist.
        """
        overrides = overrides or {}
        unknown = sorted(set(overrides) - set(self._registered))
        if unknown:
            known = ", ".join(sorted(self._registered)) or "none"
            raise ConfigurationError(
                f"GOMQ['CONSUMERS'] names {', '.join(map(repr, unknown))}: there is no "
                f"such consumer; there are {known}. One that registers after ready() "
                "has its options in its code.",
                consumer=unknown[0],
            )
        found = [
            _configured(found.consumer, overrides)
            for found in self._registered.values()
        ]
        _refuse_shared_names(found)
        return found

    @property
    def names(self) -> frozenset[str]:
        """The names of all consumers."""
        return frozenset(self._registered)

    def snapshot(self) -> dict[str, Registration]:
        """Return what is registered now, for ``restore``."""
        return dict(self._registered)

    def restore(self, snapshot: Mapping[str, Registration]) -> None:
        """Go back to what was registered at the snapshot."""
        self._registered = dict(snapshot)

    @contextmanager
    def isolated(self) -> Iterator[Registry]:
        """Start empty, and go back to what was there at the end; for tests."""
        before, on_added = self.snapshot(), self.on_added
        self.restore({})
        self.on_added = None
        try:
            yield self
        finally:
            self.restore(before)
            self.on_added = on_added


def _refuse_shared_names(consumers: Sequence[Consumer]) -> None:
    """Raise ConfigurationError where an alias is a name, or alias, of another."""
    owners = {consumer.name: consumer.name for consumer in consumers}
    for consumer in consumers:
        for alias in consumer.aliases:
            owner = owners.setdefault(alias, consumer.name)
            if owner != consumer.name:
                raise ConfigurationError(
                    f"Consumer {consumer.name!r}: its alias {alias!r} is a name of "
                    f"consumer {owner!r}: one of them can have had it.",
                    consumer=consumer.name,
                )


def _configured(
    consumer: Consumer, overrides: Mapping[str, Mapping[str, Any]]
) -> Consumer:
    """Return the consumer with the options that ``GOMQ["CONSUMERS"]`` gives it.

    Raises ConfigurationError, which names the setting, for options that cannot be.
    """
    options = overrides.get(consumer.name)
    if not options:
        return consumer
    try:
        return consumer.with_options(options)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"GOMQ['CONSUMERS']: {error}", consumer=consumer.name
        ) from error


def _no_type(item: Any) -> ConfigurationError:
    shown = getattr(item, "__name__", repr(item))
    return ConfigurationError(
        f"@consumer was given {shown} in the place of an event type, as it is without "
        'parentheses: write @consumer("order.paid"), or @consumer(OrderPaid) with an '
        f"Event class, in the line above {shown}."
    )


registry = Registry()
"""Where ``@consumer`` registers."""

consumer = registry.consumer
