"""How the events of each type become messages, and which broker they go to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec
from django.core.files import File
from django.db.models import Model, QuerySet
from django.db.models.expressions import BaseExpression, Combinable
from django.db.models.manager import BaseManager
from django.forms import BaseForm
from django.http import HttpRequest
from django.utils.functional import LazyObject, Promise

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.data.codec import (
    OPEN_LIST,
    JsonCodec,
    may_hide_items,
    may_hide_nan,
)
from django_gomq.bus.data.foreign import adapt_foreign
from django_gomq.bus.errors import (
    ConfigurationError,
    EncodeError,
    MessageError,
    class_name,
)
from django_gomq.bus.event import Event, EventMeta, NoConsumer, event_classes
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
    """Return what a value of Django's is in JSON, or raise EncodeError with advice."""
    if isinstance(value, Promise | LazyObject):
        return _resolve(value)
    for kind, advice in _ADVICE:
        if isinstance(value, kind):
            raise EncodeError(f"{class_name(value)} is {advice}.")
    return adapt_foreign(value)


def _resolve(value: Any) -> Any:
    """Return what a lazy value stands for: a text, a number, an object."""
    # How it is pickled is the only way to it that both kinds have.
    _, arguments = value.__reduce__()
    if isinstance(value, Promise):
        call, args, kwargs, *_ = arguments
        return call(*args, **kwargs)
    return arguments[0]


_ADVICE: Final = (
    (Model, "a model instance: emit its pk and let the handler load it, or its fields"),
    (
        (QuerySet, BaseManager),
        "not data: emit list(queryset.values_list('pk', flat=True)), or emit_many()",
    ),
    (
        (Combinable, BaseExpression),
        "an expression for the database: emit the value that it has there",
    ),
    (HttpRequest, "not data: emit what the handler needs of it"),
    (File, "a file: emit its name, or where it is stored"),
    (BaseForm, "a form: emit its cleaned_data, or its errors"),
)


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

    __slots__ = (
        *("_encode", "broker", "codec"),
        *("event_class", "event_type", "max_body_bytes", "may_raise", "no_consumer"),
    )

    def __init__(
        self, event_type: str, broker: Broker, codec: JsonCodec, max_body_bytes: int
    ) -> None:
        self.event_type = event_type
        self.event_class: EventMeta | None = None
        self.broker = broker
        self.codec = codec
        self._encode = codec.encode_bare
        self.max_body_bytes = max_body_bytes
        self.may_raise: bool | None = None
        """Whether settings say that a refusal may be raised; None: not looked at."""
        self.no_consumer: NoConsumer | None = None
        """What the Event class of the type says; None: nothing, or there is none."""

    def encode(self, event: Any, data: Any) -> bytes:
        """Return the body, checked; raises MessageError or ConfigurationError."""
        # On the hot path of emit: as JsonCodec.encode(), without the call.
        try:
            body = self._encode(data)
        except Exception:
            self.codec.encode(self.event_type, data)  # raises what is to be told
            raise  # of a signal handler: nothing is wrong with the data
        if (
            body.find(b"null") >= 0
            or (OPEN_LIST in body and body.find(b"[]") >= 0)
            or body.find(b"{}") >= 0
        ):
            body = self.codec.complete(self.event_type, data, body)
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


class CheckedEmitter(Emitter):
    """The emitter of a name that an Event class has as its type: that checks the data.

    Its consumers may name the class, and would give up on what does not fit.
    """

    __slots__ = ("_checked_by",)

    def __init__(
        self,
        event_class: EventMeta,
        broker: Broker,
        codec: JsonCodec,
        max_body_bytes: int,
    ) -> None:
        super().__init__(event_class.__event_type__, broker, codec, max_body_bytes)
        self._checked_by = event_class
        self.no_consumer = event_class.__no_consumer__

    def encode(self, event: Any, data: Any) -> bytes:
        """Return the body, checked; raises MessageError or ConfigurationError."""
        body = super().encode(event, data)
        self.codec.check_body(self._checked_by, body)
        return body


class TypedEmitter(Emitter):
    """The emitter of an Event class."""

    __slots__ = ("_check", "_may_hide_items", "_may_hide_nan")

    def __init__(
        self,
        event_class: EventMeta,
        broker: Broker,
        codec: JsonCodec,
        max_body_bytes: int,
    ) -> None:
        super().__init__(_type_of(event_class), broker, codec, max_body_bytes)
        self.event_class = event_class
        self.no_consumer = event_class.__no_consumer__
        self._check = codec.check_of(event_class)
        self._may_hide_nan = may_hide_nan(event_class)
        self._may_hide_items = may_hide_items(event_class)

    def encode(self, event: Any, data: Any) -> bytes:
        """Return the event as JSON, after decoding it again as a check."""
        # On the hot path of emit: two calls of msgspec, and as little else as may be.
        if data is not None:
            _refuse_data(type(event))
        try:
            body = self._encode(event)
            self._check(body)
        except Exception:
            self.codec.encode_event(event)  # as above
            raise
        # As in JsonCodec.encode().
        if (self._may_hide_nan and body.find(b"null") >= 0) or (
            self._may_hide_items
            and ((OPEN_LIST in body and body.find(b"[]") >= 0) or body.find(b"{}") >= 0)
        ):
            whole = self.codec.complete(self.event_type, event, body)
            body = body if whole is body else self.codec.encode_event(event)
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
        cls = class_of(event_type)
        if cls is not None:
            return CheckedEmitter(cls, broker, self._codec, self._max_body_bytes)
        return Emitter(event_type, broker, self._codec, self._max_body_bytes)

    def _broker(self, alias: str | None, event_type: str) -> Broker:
        alias = self._route(event_type) if alias is None else alias
        try:
            return self._brokers[alias]
        except (KeyError, TypeError):  # some values are no keys at all
            known = ", ".join(map(repr, self._brokers))
            raise ConfigurationError(
                f"There is no broker {alias!r} in GOMQ['BROKERS']; there are {known}.",
                broker=alias,
            ) from None


def class_of(event_type: str) -> EventMeta | None:
    """Return the Event class that holds for events emitted by this name, if any."""
    named = (cls for cls in event_classes() if cls.__event_type__ == event_type)
    return next(named, None)


def _type_of(event_class: EventMeta) -> str:
    if not event_class.__event_type__:
        name = event_class.__name__
        raise ConfigurationError(
            f"{name} names no event type: write class {name}(Event, type='...')."
        )
    return event_class.__event_type__


def _refuse_data(event_class: type) -> NoReturn:
    raise ConfigurationError(
        f"emit({event_class.__name__}(...), data): a typed event carries its data in "
        "its fields."
    )
