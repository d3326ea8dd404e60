"""How the events of each type become messages, and which broker they go to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import Promise

from django_gomq.bus.broker import Broker
from django_gomq.bus.codec import JsonCodec, may_hide_nan, no_adapt
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.errors import ConfigurationError, EncodeError, MessageError
from django_gomq.bus.event import Event, EventMeta
from django_gomq.bus.message import (
    DEFAULT_PRIORITY,
    NO_HEADERS,
    Message,
    too_large,
    validate,
    validate_type,
)
from django_gomq.bus.patterns import Pattern
from django_gomq.options import PLAIN, Options


def adapt(value: Any) -> Any:
    """Return the text of a lazy translation; raise EncodeError for all else."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Model):
        name = type(value).__name__
        raise EncodeError(
            f"{name} is a model instance: emit its pk and let the handler load it, or "
            "the fields that the event is about."
        )
    if isinstance(value, QuerySet):
        raise EncodeError(
            "A queryset is not data: emit list(queryset.values_list('pk', flat=True)), "
            "or one event each with emit_many()."
        )
    if isinstance(value, HttpRequest):
        raise EncodeError("A request is not data: emit what the handler needs of it.")
    return no_adapt(value)


DEFAULT: Final = "default"


class Routes:
    """The ``ROUTES`` setting: the most specific wins, ``default`` takes the rest."""

    def __init__(self, routes: Mapping[str, str]) -> None:
        self._routes = sorted(
            ((Pattern(text), alias) for text, alias in routes.items()),
            key=lambda pair: pair[0].specificity,
            reverse=True,
        )
        # Names of types may be data, so the memory of answers is bounded.
        self.alias_of = functools.lru_cache(4096)(self._alias_of)
        """Return the alias of the broker that an event type goes to."""

    def _alias_of(self, event_type: str) -> str:
        for pattern, alias in self._routes:
            if pattern.matches(event_type):
                return alias
        return DEFAULT

    def share_of(self, consumer: Consumer, alias: str) -> Consumer | None:
        """Return the consumer with the types that may be routed to that broker."""
        types = tuple(
            text for text in consumer.types if self._may_reach(Pattern(text), alias)
        )
        return msgspec.structs.replace(consumer, types=types) if types else None

    def _may_reach(self, wanted: Pattern, alias: str) -> bool:
        if wanted.is_exact:
            return self._alias_of(wanted.text) == alias
        if any(wanted.overlaps(pattern) for pattern, to in self._routes if to == alias):
            return True
        is_covered = any(pattern.covers(wanted) for pattern, _ in self._routes)
        return alias == DEFAULT and not is_covered


MAX_KNOWN: Final = 4096  # names of types may be data; of classes all are kept


class Emitter:
    """What holds for all events of one type: its broker, and how to encode its data."""

    __slots__ = ("broker", "codec", "event_class", "event_type", "max_body_bytes")

    def __init__(
        self, event_type: str, broker: Broker, codec: JsonCodec, max_body_bytes: int
    ) -> None:
        self.event_type = event_type
        self.event_class: EventMeta | None = None
        self.broker = broker
        self.codec = codec
        self.max_body_bytes = max_body_bytes

    def encode(self, event: Any, data: Any) -> bytes:
        """Return the body, checked; raises MessageError or ConfigurationError."""
        body = self.codec.encode(self.event_type, data)
        if len(body) > self.max_body_bytes:
            raise too_large(self.event_type, body, self.max_body_bytes)
        return body

    def make_message(self, event: Any, data: Any, options: Options) -> Message[Any]:
        """Check and encode; raises MessageError or ConfigurationError."""
        body = self.encode(event, data)
        if options is PLAIN or options.is_plain:
            return Message(self.event_type, body)
        message: Message[Any] = Message(
            self.event_type,
            body,
            options.key,
            options.priority,
            self._copy(options.headers) if options.headers else NO_HEADERS,
            options.delay or 0.0,
        )
        validate(message, max_body_bytes=self.max_body_bytes)
        if message.delay or message.priority != DEFAULT_PRIORITY:
            # At the commit it would be too late to tell the caller.
            self.broker.check(message)
        return message

    def _copy(self, headers: Mapping[str, str]) -> dict[str, str]:
        if not isinstance(headers, Mapping):
            raise MessageError(
                "headers must be a dict of texts.", event=self.event_type
            )
        return dict(headers)


class TypedEmitter(Emitter):
    """The emitter of an Event class."""

    __slots__ = ("_check", "_encode", "_may_hide_nan")

    def __init__(
        self,
        event_class: EventMeta,
        broker: Broker,
        codec: JsonCodec,
        max_body_bytes: int,
    ) -> None:
        super().__init__(_type_of(event_class), broker, codec, max_body_bytes)
        self.event_class = event_class
        self._encode = codec.encode_bare
        self._check = codec.check_of(event_class)
        self._may_hide_nan = may_hide_nan(event_class)

    def encode(self, event: Any, data: Any) -> bytes:
        """Return the event as JSON, after decoding it again as a check."""
        # On the hot path of emit: two calls of msgspec, and as little else as may be.
        if data is not None:
            _refuse_data(type(event))
        try:
            body = self._encode(event)
            self._check(body)
        except Exception:  # noqa: BLE001 - the long way raises what is to be told
            return self.codec.encode_event(event)
        if self._may_hide_nan and body.find(b"null") >= 0:
            self.codec.encode_event(event)
        if len(body) > self.max_body_bytes:
            raise too_large(self.event_type, body, self.max_body_bytes)
        return body


class Emitters:
    """The plans of one site; thread-safe."""

    def __init__(
        self,
        route: Callable[[str], str],
        brokers: Mapping[str, Broker],
        codec: JsonCodec,
        max_body_bytes: int,
    ) -> None:
        self._route = route
        self._brokers = brokers
        self._codec = codec
        self._max_body_bytes = max_body_bytes
        self.known: dict[object, Emitter] = {}
        """By Event class, or by the name of an untyped event; for the hot path."""

    def find(self, event: Event | str, alias: str | None = None) -> Emitter:
        """Return the emitter of this event, for another broker if ``alias`` names one.

        Raises ConfigurationError for what is no event, and for an unknown alias.
        """
        is_typed = isinstance(event, Event)
        subject = type(event) if is_typed else event
        if alias is None and (is_typed or isinstance(event, str)):
            known = self.known.get(subject)
            if known is not None:
                return known
        emitter = self._make(event, alias)
        if alias is None and (is_typed or len(self.known) < MAX_KNOWN):
            self.known[subject] = emitter
        return emitter

    def _make(self, event: Event | str, alias: str | None) -> Emitter:
        if isinstance(event, Event):
            event_class = type(event)
            broker = self._broker(alias, _type_of(event_class))
            return TypedEmitter(event_class, broker, self._codec, self._max_body_bytes)
        if isinstance(event, EventMeta):
            raise ConfigurationError(
                f"emit() was given the class {event.__name__}: make an event of it, "
                f"{event.__name__}(...)."
            )
        event_type = validate_type(event)
        broker = self._broker(alias, event_type)
        return Emitter(event_type, broker, self._codec, self._max_body_bytes)

    def _broker(self, alias: str | None, event_type: str) -> Broker:
        alias = alias or self._route(event_type)
        try:
            return self._brokers[alias]
        except KeyError:
            known = ", ".join(map(repr, self._brokers))
            raise ConfigurationError(
                f"There is no broker {alias!r} in GOMQ['BROKERS']; there are {known}.",
                broker=alias,
            ) from None


def _type_of(event_class: EventMeta) -> str:
    if not event_class.__event_type__:
        name = event_class.__name__
        raise ConfigurationError(
            f"{name} names no event type: write class {name}(Event, type='...')."
        )
    return validate_type(event_class.__event_type__)


def _refuse_data(event_class: type) -> NoReturn:
    raise ConfigurationError(
        f"emit({event_class.__name__}(...), data): a typed event carries its data in "
        "its fields."
    )
