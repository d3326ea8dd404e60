"""emit(), aemit() and emit_many(): what applications call; commit-safe by default."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from sys import modules
from typing import Any, Unpack

from asgiref.sync import sync_to_async

from django_gomq.bus.errors import ConfigurationError, PublishError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message
from django_gomq.commit import is_outside_transactions
from django_gomq.options import PLAIN, EmitOptions, Options, Receipt, choose
from django_gomq.outgoing import (
    EmitBatch,
    defer,
    find_transaction,
    publish_now,
    publish_one,
    refuse,
)
from django_gomq.site import Site, brokers
from django_gomq.testing.capture import captures, sink

running_loop = asyncio._get_running_loop  # noqa: SLF001 - get_running_loop() raises

not_installed: Counter[str] = Counter()
"""Emits that went nowhere as django_gomq is not in INSTALLED_APPS: under ``"emit"``."""


def emit(
    event: Event | str, data: Any = None, /, **options: Unpack[EmitOptions]
) -> Receipt:
    """Emit one event: a typed one, or the name of its type with JSON data.

    Options are ``key``, ``priority`` (0 to 9, 5 by default), ``delay`` (seconds),
    ``headers``, ``broker``, ``using``, ``on_commit``, ``timeout`` and ``strict``.

    Inside ``atomic()`` the event waits for the commit, and a rollback takes it back;
    ``using`` names the database if several have a transaction open, and
    ``on_commit=False`` publishes now. Waits for room up to ``timeout`` seconds, and not
    at all without one. Thread-safe.

    Raises MessageError for data that JSON cannot carry, and ConfigurationError for a
    call that can never work (also under a running event loop: ``await aemit()``
    there). A refusal gives a false Receipt; ``strict=True`` raises it, as does the
    broker's ``ON_REFUSED="raise"``.
    """
    # The hot path of every emit: what is special goes the long way, and functions are
    # called only where they have to be, as each call costs 45 ns of 1,400.
    site = brokers.site
    if (
        site is None
        or options
        or captures
        or "django.test.utils" in modules
        or running_loop() is not None
    ):
        return _emit_with(event, data, choose(options))
    if not is_outside_transactions():
        return _emit_into(site, event, data, PLAIN)
    emitter = site.emitters.known.get(event if type(event) is str else type(event))
    if emitter is None:
        emitter = site.emitters.find(event)
    message = Message(emitter.event_type, emitter.encode(event, data))
    receipt = Receipt(message, "accepted")
    try:
        emitter.broker.hand_over(message, None)
    except PublishError as error:
        if refuse(EmitBatch(emitter, site, None, [receipt]), receipt, error):
            raise
    return receipt


def _emit_with(event: Event | str, data: Any, chosen: Options) -> Receipt:
    if running_loop() is not None:
        _refuse_on_loop(chosen)
    site = brokers.site
    if site is None:
        return _go_nowhere(event)
    is_free = not captures and "django.test.utils" not in modules
    if not is_free or chosen.using is not None or not is_outside_transactions():
        return _emit_into(site, event, data, chosen)
    outgoing = _prepare_one(site, event, data, chosen)
    publish_one(outgoing, chosen.timeout)
    return outgoing.receipts[0]


def _emit_into(site: Site, event: Event | str, data: Any, chosen: Options) -> Receipt:
    """Emit one event where a transaction is open, or a test captures events."""
    outgoing = _prepare_one(site, event, data, chosen)
    _defer_or_publish([outgoing], chosen)
    return outgoing.receipts[0]


def emit_many(
    events: Iterable[Event | tuple[str, Any]], /, **options: Unpack[EmitOptions]
) -> list[Receipt]:
    """Emit events, typed or as pairs of name and data, as one batch.

    The options are those of ``emit`` and hold for every event. All are checked before
    the first is published; ``timeout`` bounds the whole call.
    """
    chosen = choose(options)
    if running_loop() is not None:
        _refuse_on_loop(chosen)
    site = brokers.site
    if site is None:
        return [_go_nowhere(_split(event)[0]) for event in events]
    outgoing = _prepare(site, events, chosen)
    _defer_or_publish(outgoing, chosen)
    return [receipt for batch in outgoing for receipt in batch.receipts]


async def aemit(
    event: Event | str, data: Any = None, /, **options: Unpack[EmitOptions]
) -> Receipt:
    """Emit one event from async code, as ``emit`` does; never blocks the loop.

    The transaction is looked up on the thread where async code reaches the database.
    """
    chosen = choose(options)
    site = brokers.site
    if site is None:
        return _go_nowhere(event)
    outgoing = [_prepare_one(site, event, data, chosen)]
    if chosen.timeout is None:
        await sync_to_async(_defer_or_publish, thread_sensitive=True)(outgoing, chosen)
    # Waiting on that one thread would hold up all database work of the process.
    elif not await sync_to_async(_defer, thread_sensitive=True)(outgoing, chosen):
        await asyncio.to_thread(publish_now, outgoing, chosen.timeout)
    return outgoing[0].receipts[0]


def _prepare_one(
    site: Site, event: Event | str, data: Any, chosen: Options
) -> EmitBatch:
    emitter = site.emitters.known.get(event if type(event) is str else type(event))
    if emitter is None or chosen.broker is not None:
        emitter = site.emitters.find(event, chosen.broker)
    message = emitter.make_message(event, data, chosen)
    return EmitBatch(emitter, site, chosen.strict, [Receipt(message)])


def _prepare(
    site: Site, events: Iterable[Event | tuple[Event | str, Any]], chosen: Options
) -> list[EmitBatch]:
    """Check and encode events; neighbours of one emitter go together."""
    prepared: list[EmitBatch] = []
    known, latest = site.emitters.known, None
    for item in events:
        event, data = _split(item) if isinstance(item, tuple) else (item, None)
        emitter = known.get(event if type(event) is str else type(event))
        if emitter is None or chosen.broker is not None:
            emitter = site.emitters.find(event, chosen.broker)
        if chosen is PLAIN:
            message = Message(emitter.event_type, emitter.encode(event, data))
        else:
            message = emitter.make_message(event, data, chosen)
        if emitter is not latest:
            latest, receipts = emitter, list[Receipt]()
            prepared.append(EmitBatch(emitter, site, chosen.strict, receipts))
        receipts.append(Receipt(message))
    return prepared


def _defer_or_publish(outgoing: list[EmitBatch], chosen: Options) -> None:
    if not _defer(outgoing, chosen):
        publish_now(outgoing, chosen.timeout)


def _defer(outgoing: list[EmitBatch], chosen: Options) -> bool:
    """Keep events that wait for a commit or a test; return whether they do."""
    if not outgoing:
        return True
    captured = sink() if "django.test.utils" in modules or captures else None
    connection = find_transaction(outgoing[0].site, chosen, captured)
    if captured is None and connection is None:
        return False
    defer(outgoing, connection, captured)
    return True


def _split(item: Event | tuple[Event | str, Any]) -> tuple[Event | str, Any]:
    if not isinstance(item, tuple):
        return item, None
    try:
        event, data = item
    except ValueError:
        raise ConfigurationError(
            f"emit_many() takes events and pairs (name, data), no {len(item)} values."
        ) from None
    return event, data


def _refuse_on_loop(chosen: Options) -> None:
    if chosen.on_commit is False:
        if chosen.timeout is None:
            return
        raise ConfigurationError(
            f"emit(timeout={chosen.timeout}) would block the event loop: use "
            "'await aemit(...)', or leave timeout out."
        )
    raise ConfigurationError(
        "emit() was called under a running event loop, where it cannot see the "
        "transaction: use 'await aemit(...)', or on_commit=False to publish at once."
    )


def _go_nowhere(event: Event | str) -> Receipt:
    # Reusable apps may emit whether or not the project has django_gomq installed.
    not_installed["emit"] += 1
    name = type(event).__event_type__ if isinstance(event, Event) else str(event)
    receipt = Receipt(Message(name))
    receipt.refuse("not_installed")
    return receipt
