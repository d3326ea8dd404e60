"""emit(), aemit() and emit_many(): what applications call; commit-safe by default."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from sys import modules
from typing import Any, Final, Unpack

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from django_gomq.bus.errors import (
    ConfigurationError,
    NotRunningError,
    PublishError,
    class_name,
)
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message
from django_gomq.bus.process.fork import hurried, works_for_bus
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.worker.causes import in_work, name_cause
from django_gomq.capturing import captures
from django_gomq.commit import is_outside_transactions
from django_gomq.options import PLAIN, EmitOptions, Options, Receipt, choose
from django_gomq.outgoing import (
    MAX_WARNED,
    EmitBatch,
    defer,
    find_transactions,
    hand_to_captures,
    publish_now,
    publish_one,
    refuse,
)
from django_gomq.process.role import serves_requests
from django_gomq.site import Site, brokers

logger = logging.getLogger("gomq.emit")

running_loop = asyncio._get_running_loop  # noqa: SLF001 - get_running_loop() raises

not_installed: Counter[str] = Counter()
"""Emits that went nowhere as django_gomq is not set up: under ``"emit"``."""


def emit(
    event: Event | str, data: Any = None, /, **options: Unpack[EmitOptions]
) -> Receipt:
    """Emit one event: a typed one, or the name of its type with JSON data.

    Options are ``key``, ``priority`` (0 to 9, 5 by default), ``delay`` (seconds),
    ``headers``, ``broker``, ``using``, ``on_commit``, ``timeout`` and ``strict``.

    Inside ``atomic()`` the event waits for the commit, and a rollback takes it back.
    Where several databases have a transaction open it waits for all of them, or for
    that of ``using``; ``on_commit=False`` publishes now. Waits for room up to
    ``timeout`` seconds; without one not at all in a request or a handler, and as long
    as it takes in a management command or a script. Thread-safe.

    Raises MessageError for data that JSON cannot carry, and ConfigurationError for a
    call that can never work (also under a running event loop: ``await aemit()``
    there, unless DJANGO_ALLOW_ASYNC_UNSAFE is set, as in notebooks). A refusal gives a
    false Receipt; ``strict=True`` raises it, as does the broker's
    ``ON_REFUSED="raise"``.
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
        return _emit_with(event, data, choose(options, event))
    if not is_outside_transactions():
        return _emit_into(site, event, data, PLAIN)
    emitter = site.emitters.known.get(event if type(event) is str else type(event))
    if emitter is None:
        emitter = site.emitters.find(event)
    message = Message(emitter.event_type, emitter.encode(event, data))
    if in_work() is not None:
        name_cause(message)
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
        return _go_nowhere(event, chosen)
    is_free = not captures and "django.test.utils" not in modules
    if not is_free or chosen.using is not None or not is_outside_transactions():
        return _emit_into(site, event, data, chosen)
    outgoing = _prepare_one(site, event, data, chosen)
    if running_loop() is None or _may_query_on_loop():
        publish_one(outgoing, chosen.timeout)
    else:
        with hurried():
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
    if type(events) is not list:
        _check_many(events)
    if running_loop() is not None:
        _refuse_on_loop(chosen)
    site = brokers.site
    if site is None:
        return [_go_nowhere(_split(event)[0], chosen) for event in events]
    outgoing = _prepare(site, events, chosen)
    if running_loop() is None or _may_query_on_loop():
        _defer_or_publish(outgoing, chosen)
    else:
        with hurried():
            _defer_or_publish(outgoing, chosen)
    return [receipt for batch in outgoing for receipt in batch.receipts]


async def aemit(
    event: Event | str, data: Any = None, /, **options: Unpack[EmitOptions]
) -> Receipt:
    """Emit one event from async code, as ``emit`` does; never blocks the loop.

    The transaction is looked up on the thread where async code reaches the database.
    """
    chosen = choose(options, event)
    site = brokers.site
    if site is None:
        return _go_nowhere(event, chosen)
    outgoing = [_prepare_one(site, event, data, chosen)]
    if _may_query_on_loop() and not _defer(outgoing, chosen):
        return outgoing[0].receipts[0]
    if chosen.timeout is None and (serves_requests() or works_for_bus()):
        await sync_to_async(_defer_or_publish, thread_sensitive=True)(outgoing, chosen)
    else:
        # Waiting on that one thread would hold up all database work of the process.
        left = await sync_to_async(_defer, thread_sensitive=True)(outgoing, chosen)
        if left:
            await asyncio.to_thread(publish_now, left, chosen.timeout)
    return outgoing[0].receipts[0]


def _prepare_one(
    site: Site, event: Event | str, data: Any, chosen: Options
) -> EmitBatch:
    emitter = site.emitters.known.get(event if type(event) is str else type(event))
    if emitter is None or chosen.broker is not None:
        emitter = site.emitters.find(event, chosen.broker)
    message = emitter.make_message(event, data, chosen)
    name_cause(message)
    return EmitBatch(emitter, site, chosen.strict, [Receipt(message)], chosen.timeout)


def _prepare(
    site: Site, events: Iterable[Event | tuple[Event | str, Any]], chosen: Options
) -> list[EmitBatch]:
    """Check and encode events; neighbours of one emitter go together."""
    prepared: list[EmitBatch] = []
    known, latest = site.emitters.known, None
    is_caused = in_work() is not None
    for item in events:
        event, data = _split(item) if isinstance(item, tuple) else (item, None)
        emitter = known.get(event if type(event) is str else type(event))
        if emitter is None or chosen.broker is not None:
            emitter = site.emitters.find(event, chosen.broker)
        if chosen is PLAIN:
            message = Message(emitter.event_type, emitter.encode(event, data))
        else:
            message = emitter.make_message(event, data, chosen)
        if is_caused:
            name_cause(message)
        if emitter is not latest:
            latest, receipts = emitter, list[Receipt]()
            batch = EmitBatch(emitter, site, chosen.strict, receipts, chosen.timeout)
            prepared.append(batch)
        receipts.append(Receipt(message))
    return prepared


def _defer_or_publish(outgoing: list[EmitBatch], chosen: Options) -> None:
    left = _defer(outgoing, chosen)
    if left:
        publish_now(left, chosen.timeout)


def _defer(outgoing: list[EmitBatch], chosen: Options) -> list[EmitBatch]:
    """Keep events that wait for a commit, or for a test; return the others."""
    left = outgoing
    if "django.test.utils" in modules or captures:
        left = hand_to_captures(outgoing, chosen)
    if not left:
        return left
    connections = find_transactions(left[0].site, chosen)
    if not connections:
        return left
    defer(left, connections)
    return []


def _check_many(events: object) -> None:
    """Raise ConfigurationError for one event, its name, or what is none of many."""
    is_one = isinstance(events, str | bytes | Event | Mapping)
    if is_one or not isinstance(events, Iterable):
        raise ConfigurationError(
            "emit_many() takes a list of events and pairs (name, data), and "
            f"{class_name(events)} is none: emit() takes one event."
        )


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


def _may_query_on_loop() -> bool:
    """Whether Django lets sync code under a running loop query, as in notebooks."""
    return bool(os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"))


def _is_of_another_greenlet() -> bool:
    """Whether gevent or eventlet shows us a loop that another of its threads runs.

    asyncio knows one running loop for all greenlets of a thread.
    """
    us = threading.get_ident()
    return getattr(running_loop(), "_thread_id", us) != us


def _refuse_on_loop(chosen: Options) -> None:
    if _may_query_on_loop() or _is_of_another_greenlet():
        return
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


def _go_nowhere(event: Event | str, chosen: Options) -> Receipt:
    # Reusable apps may emit whether or not the project has django_gomq installed.
    not_installed["emit"] += 1
    name = type(event).__event_type__ if isinstance(event, Event) else str(event)
    receipt = Receipt(Message(name))
    if not _is_installed():
        _tell_once("", _NOT_INSTALLED, name)
        receipt.refuse("not_installed")
        return receipt
    error = NotRunningError(_TOO_EARLY % name, event=name)
    if chosen.strict:
        raise error
    if brokers.failure is None:  # else that is told
        _tell_once(name, _TOO_EARLY, name)
    receipt.refuse(error.code, error)
    return receipt


_NOT_INSTALLED: Final = (
    "Event %s went nowhere, as all others will: 'django_gomq' is not in INSTALLED_APPS"
)
_TOO_EARLY: Final = (
    "Event %s was emitted too early, at import or in ready() of an app above "
    "django_gomq, which is not set up yet: emit it later, or move 'django_gomq' up in "
    "INSTALLED_APPS"
)
_told: Final[set[str]] = set()


def _tell_once(subject: str, text: str, event: str) -> None:
    if subject not in _told and len(_told) < MAX_WARNED:
        _told.add(subject)
        fields = {"gomq_event": event}
        write_log(logger, logging.WARNING, text, event, fields=fields)


def _is_installed() -> bool:
    """Whether this site has django_gomq, though it may not be set up yet."""
    if apps.apps_ready:
        return apps.is_installed("django_gomq")
    try:
        entries = settings.INSTALLED_APPS
    except ImproperlyConfigured:
        return False
    return any(entry.partition(".")[0] == "django_gomq" for entry in entries)
