"""Handlers, called on the test's own thread as the bus calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any, Final, overload

import msgspec
from asgiref.sync import async_to_sync

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import Delivery, Outcome, RetryAfter
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import Event, EventMeta
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.worker.environment import NO_SCOPE, ThreadScope
from django_gomq.bus.worker.processor import Processor
from django_gomq.bus.worker.transactions import TransactionInbox
from django_gomq.database import DjangoEnvironment
from django_gomq.options import choose
from django_gomq.site import Site, brokers

from .expectation import type_of


class _TestEnvironment(DjangoEnvironment):
    """Leaves the database as it is: the transaction of a test stays open."""

    def thread_scope(self) -> ThreadScope:
        return NO_SCOPE

    async def before_async_handler(self) -> None:
        """Leave connections alone."""

    async def after_async_handler(self) -> None:
        """Leave connections alone."""


_environment: Final = _TestEnvironment()
_NO_HOOKS: Final = Hooks(())


def _note_as_fresh(deliveries: Sequence[Delivery]) -> Sequence[bool]:
    """Answer as an inbox does in which nothing is noted."""
    return [True] * len(deliveries)


class HandledMessage(msgspec.Struct, frozen=True):
    """One attempt that a test made: who handled which message, and how it ended."""

    consumer: str
    message: Message[Any]
    attempt: int
    outcome: Outcome


def process(
    consumer: Consumer, broker: Broker, deliveries: Sequence[Delivery]
) -> list[Outcome]:
    """Call the handler once for these; raises ConfigurationError on an event loop.

    A batch handler gets them as one list. Async handlers run to their end.
    """
    processor = Processor(
        consumer,
        broker=broker.alias,
        backend=broker.backend_name,
        hooks=_NO_HOOKS,
        environment=_environment,
        inbox=TransactionInbox(broker.backend.database, _note_as_fresh),
    )
    if consumer.batch is not None:
        return processor.process_batch(deliveries)
    if not consumer.is_async:
        return [processor.process(delivery)[0] for delivery in deliveries]
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the other one raises
        raise ConfigurationError(
            f"Consumer {consumer.name!r} is async, and a test cannot wait for it on "
            "the event loop: use 'await aemit(...)', and 'await "
            "sync_to_async(call)(...)'."
        )
    run = async_to_sync(processor.process_async)
    return [Context().run(run, delivery)[0] for delivery in deliveries]


def process_to_the_end(
    consumer: Consumer, broker: Broker, messages: Sequence[Message[Any]]
) -> list[HandledMessage]:
    """Call the handler as often as its Retry says, without waiting in between.

    What it wants again later (RetryLater) is left at that.
    """
    handled: list[HandledMessage] = []
    attempt, waiting = 1, list(messages)
    while waiting:
        deliveries = [
            Delivery(message, Clock.monotonic(), attempt) for message in waiting
        ]
        outcomes = process(consumer, broker, deliveries)
        pairs = list(zip(waiting, outcomes, strict=True))
        handled += [
            HandledMessage(consumer.name, message, attempt, outcome)
            for message, outcome in pairs
        ]
        waiting = [
            message
            for message, outcome in pairs
            if isinstance(outcome, RetryAfter) and outcome.error is not None
        ]
        attempt += 1
    return handled


@overload
def call(
    handler: Any,
    event: Event | str,
    data: Any = ...,
    /,
    *,
    attempt: int = ...,
    key: str | None = ...,
    headers: Mapping[str, str] | None = ...,
) -> Outcome: ...
@overload
def call(
    handler: Any,
    event: list[Any],
    /,
    *,
    attempt: int = ...,
    key: str | None = ...,
    headers: Mapping[str, str] | None = ...,
) -> list[Outcome]: ...
def call(
    handler: Any,
    event: Any,
    data: Any = None,
    /,
    *,
    attempt: int = 1,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Outcome | list[Outcome]:
    """Call one handler once, as the bus calls it, and return the outcome.

    ``handler`` is what ``@consumer`` stands on, or the name of a consumer. The event
    is what ``emit`` takes; a list of events and pairs (type, data) is one batch for a
    batch handler, and gives a list of outcomes. The data are encoded and decoded, the
    context is fresh, and an async handler runs to its end. What the handler raises is
    in the outcome: Ack(), RetryAfter with the delay, or DeadLettered with the error.
    Raises AssertionError where the bus would never give it this event, and
    ConfigurationError for what is no event or no attempt.
    """
    if type(attempt) is not int or attempt < 1:
        raise ConfigurationError(f"attempt is {attempt!r:.120}, not a number from 1.")
    site = _site()
    items = event if isinstance(event, list) else [(event, data)]
    options = choose({"key": key, "headers": headers})
    messages = []
    for item in items:
        subject, content = _pair_of(item)
        emitter = site.emitters.find(subject)
        messages.append(emitter.make_message(subject, content, options))
    types = {message.type for message in messages}
    consumer = _consumer_of(site, handler, types)
    broker = site.brokers[site.route(next(iter(types), ""))]
    deliveries = [Delivery(message, Clock.monotonic(), attempt) for message in messages]
    outcomes = process(consumer, broker, deliveries)
    return outcomes if isinstance(event, list) else outcomes[0]


def _pair_of(item: Any) -> tuple[Any, Any]:
    """Return type and data of one event of a batch."""
    if not isinstance(item, tuple):
        return item, None
    if len(item) != 2:  # noqa: PLR2004 - a pair
        raise ConfigurationError(f"{item!r:.200} is no pair of a type and data.")
    return item


def assert_listening(event: str | EventMeta, consumer: Any, /) -> None:
    """Assert that a consumer, by its name or its handler, gets events of this type."""
    event_type = type_of(event)
    found = _named(_site(), consumer)
    if any(
        consumer.enabled and consumer.subscribes_to(event_type) for consumer in found
    ):
        return
    heard = [
        consumer.name
        for consumer in _all(_site())
        if consumer.enabled and consumer.subscribes_to(event_type)
    ]
    listens = "; ".join(
        f"{consumer.name} listens to {', '.join(consumer.types)}"
        + ("" if consumer.enabled else ", but is not enabled")
        for consumer in found
    )
    raise AssertionError(
        f"{event_type!r} goes to {', '.join(heard) or 'nobody'}; {listens}."
    )


def _site() -> Site:
    site = brokers.site
    if site is None:
        raise ConfigurationError(
            "django_gomq is not set up: add 'django_gomq' to INSTALLED_APPS."
        )
    return site


def _all(site: Site) -> list[Consumer]:
    found = {consumer.name: consumer for consumer in site.consumers}
    for broker in site.brokers.values():
        for consumer in broker.consumers:
            found.setdefault(consumer.name, consumer)
    return list(found.values())


def _named(site: Site, handler: Any) -> list[Consumer]:
    found = [consumer for consumer in _all(site) if _is_of(consumer, handler)]
    if not found:
        known = ", ".join(sorted(consumer.name for consumer in _all(site))) or "none"
        name = handler if isinstance(handler, str) else _name_of(handler)
        raise AssertionError(
            f"There is no consumer of {name!r:.200}; there are {known}."
        )
    return found


def _name_of(handler: Any) -> str:
    return str(getattr(handler, "__qualname__", repr(handler)))


def _is_of(consumer: Consumer, handler: Any) -> bool:
    if isinstance(handler, str):
        return consumer.name == handler
    known = consumer.handler
    owner = getattr(known, "__self__", None)
    return known == handler or (
        owner is not None and (owner is handler or type(owner) is handler)
    )


def _consumer_of(site: Site, handler: Any, types: set[str]) -> Consumer:
    found = _named(site, handler)
    fitting = [
        consumer for consumer in found if all(map(consumer.subscribes_to, types))
    ]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(consumer.name for consumer in fitting or found)
    if fitting:
        raise AssertionError(
            f"{_name_of(handler)} is the handler of {names}: give one of these names."
        )
    listens = ", ".join(text for consumer in found for text in consumer.types)
    raise AssertionError(
        f"{', '.join(sorted(types))} never reaches {names}, which listens to {listens}."
    )
