"""From an event to its message and on to its broker; it knows no transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from django_gomq.bus.broker import Broker
from django_gomq.bus.codec import decode_as
from django_gomq.bus.errors import (
    ConfigurationError,
    MessageError,
    NoConsumerError,
    PublishError,
)
from django_gomq.bus.event import Event, EventMeta
from django_gomq.bus.message import (
    DEFAULT_PRIORITY,
    Message,
    decode_plain,
    new_id,
    validate,
    validate_type,
)
from django_gomq.bus.timers import Deadline
from django_gomq.receipt import Receipt
from django_gomq.running import serves_requests
from django_gomq.wiring import Site

logger = logging.getLogger("gomq.emit")

MAX_WARNED: Final = 1000  # names of types may be data; these are remembered as told


class Outgoing(msgspec.Struct, frozen=True, eq=False):
    """One event on its way: its message, its broker, its receipt."""

    message: Message[Any]
    receipt: Receipt
    broker: Broker
    site: Site
    event_class: EventMeta | None
    strict: bool | None
    parents: tuple[object, ...] = ()
    """What the hooks kept of the moment of emit."""


def prepare(
    site: Site,
    event: Event | str,
    data: Any,
    *,
    key: str | None,
    priority: int,
    delay: float | None,
    headers: Mapping[str, str] | None,
    broker: str | None,
    strict: bool | None,
) -> Outgoing:
    """Check and encode an event; raises MessageError or ConfigurationError."""
    event_class = type(event) if isinstance(event, Event) else None
    event_type, body = _encode(site, event, data)
    now = time.time_ns()
    message: Message[Any] = Message(
        event_type,
        body,
        key,
        priority,
        _copy(headers, event_type) if headers else {},
        delay or 0.0,
        now,
        new_id(now),
    )
    validate(message, max_body_bytes=site.config.max_body_bytes)
    target = _broker(site, broker or site.route(event_type))
    if message.delay or priority != DEFAULT_PRIORITY:
        target.check(message)  # at the commit it would be too late to tell the caller
    return Outgoing(message, Receipt(message), target, site, event_class, strict)


def _copy(headers: Mapping[str, str], event_type: str) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise MessageError("headers must be a dict of texts.", event=event_type)
    return dict(headers)


def _encode(site: Site, event: Event | str, data: Any) -> tuple[str, bytes]:
    if isinstance(event, Event):
        return _type_of(event, data), site.codec.encode_event(event)
    if isinstance(event, EventMeta):
        raise ConfigurationError(
            f"emit() was given the class {event.__name__}: make an event of it, "
            f"{event.__name__}(...)."
        )
    return validate_type(event), site.codec.encode(event, data)


def _type_of(event: Event, data: Any) -> str:
    name = type(event).__name__
    if data is not None:
        raise ConfigurationError(
            f"emit({name}(...), data): a typed event carries its data in its fields."
        )
    if not type(event).__event_type__:
        raise ConfigurationError(
            f"{name} names no event type: write class {name}(Event, type='...')."
        )
    event_type = type(event).__event_type__
    if event_type not in _valid_types:
        _valid_types.add(validate_type(event_type))
    return event_type


_valid_types: set[str] = set()  # of Event classes: as many as the code has


def _broker(site: Site, alias: str) -> Broker:
    try:
        return site.brokers[alias]
    except KeyError:
        known = ", ".join(map(repr, site.brokers))
        raise ConfigurationError(
            f"There is no broker {alias!r} in GOMQ['BROKERS']; there are {known}.",
            broker=alias,
        ) from None


def decoded(outgoing: Outgoing) -> Message[Any]:
    """Return the message as a consumer would see it, for those who capture it."""
    event_class = outgoing.event_class
    decode = decode_plain if event_class is None else decode_as(event_class)
    return outgoing.message.for_delivery(1, decode)


def publish_now(outgoing: Outgoing, timeout: float | None) -> Receipt:
    """Hand one event over; raises the refusal where ``strict`` or the broker say so."""
    try:
        outgoing.broker.hand_over(outgoing.message, timeout)
    except PublishError as error:
        note_refusal(outgoing, error)
        if _raises(outgoing, error):
            raise
    else:
        outgoing.receipt.accept()
    return outgoing.receipt


def publish_all(items: Sequence[Outgoing], timeout: float | None) -> None:
    """Hand events over in their order, as one batch for each broker.

    ``timeout`` bounds the call. Raises the first refusal that is to be raised, after
    all were tried.
    """
    deadline = Deadline.after(timeout)
    by_broker: dict[Broker, list[Outgoing]] = {}
    for one in items:
        by_broker.setdefault(one.broker, []).append(one)
    first: PublishError | None = None
    for broker, group in by_broker.items():
        answers = broker.publish_many(
            [one.message for one in group],
            timeout=deadline.left(),
            parents=[one.parents for one in group],
        )
        for one, error in zip(group, answers, strict=True):
            if error is None:
                one.receipt.accept()
            else:
                note_refusal(one, error)
                first = first or (error if _raises(one, error) else None)
    if first is not None:
        raise first


def publish_committed(items: Sequence[Outgoing]) -> None:
    """Hand over what a commit made true.

    Waits for room, ``FLUSH_TIMEOUT`` in a request, without limit in a management
    command: there nobody waits, and a loop of emits may outrun the consumers.
    """
    timeout = items[0].site.config.flush_timeout if serves_requests() else _NO_LIMIT
    publish_all(items, timeout)


_NO_LIMIT: Final = 86_400.0 * 365


def roll_back(outgoing: Outgoing) -> None:
    """Note that a rollback took the event back."""
    outgoing.receipt.refuse("rolled_back")
    outgoing.broker.count_rolled_back(outgoing.message.type)


def note_refusal(outgoing: Outgoing, error: PublishError) -> None:
    """Tell the receipt; warn once where nobody consumes the type."""
    outgoing.receipt.refuse(error.code, error)
    if isinstance(error, NoConsumerError) and _no_consumer(outgoing) == "warn":
        _warn_once(outgoing.message.type, str(outgoing.broker.alias))


def _no_consumer(outgoing: Outgoing) -> str:
    event_class = outgoing.event_class
    wanted = event_class.__no_consumer__ if event_class is not None else None
    return wanted or outgoing.site.config.no_consumer


def _raises(outgoing: Outgoing, error: PublishError) -> bool:
    if isinstance(error, NoConsumerError):
        rule = _no_consumer(outgoing)
        return rule == "raise" or (rule != "ignore" and bool(outgoing.strict))
    if outgoing.strict is not None:
        return outgoing.strict
    return outgoing.site.config.brokers[outgoing.broker.alias].on_refused == "raise"


_warned: set[str] = set()


def _warn_once(event_type: str, broker: str) -> None:
    if event_type in _warned or len(_warned) >= MAX_WARNED:
        return
    _warned.add(event_type)
    logger.warning(
        "Event %s has no consumer; this is said once per type",
        event_type,
        extra={"gomq_event": event_type, "gomq_broker": broker},
    )
