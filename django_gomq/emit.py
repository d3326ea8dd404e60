"""emit(), aemit() and emit_many(): what applications call; commit-safe by default."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import Event
from django_gomq.bus.message import DEFAULT_PRIORITY, Message
from django_gomq.holding import find_transaction, hold
from django_gomq.outgoing import Outgoing, prepare, publish_all, publish_now
from django_gomq.receipt import Receipt
from django_gomq.testing.capture import sink
from django_gomq.wiring import brokers

not_installed: Counter[str] = Counter()
"""Emits that went nowhere as django_gomq is not in INSTALLED_APPS: under ``"emit"``."""


def emit(
    event: Event | str,
    data: Any = None,
    /,
    *,
    key: str | None = None,
    priority: int = DEFAULT_PRIORITY,
    delay: float | None = None,
    headers: Mapping[str, str] | None = None,
    broker: str | None = None,
    using: str | None = None,
    on_commit: bool | None = None,
    timeout: float | None = None,
    strict: bool | None = None,
) -> Receipt:
    """Emit one event: a typed one, or the name of its type with JSON data.

    Inside ``atomic()`` the event waits for the commit, and a rollback takes it back;
    ``using`` names the database if several have a transaction open, and
    ``on_commit=False`` publishes now. ``delay`` is in seconds, ``priority`` 0 to 9.
    Waits for room up to ``timeout`` seconds, and not at all without one. Thread-safe.

    Raises MessageError for data that JSON cannot carry, and ConfigurationError for a
    call that can never work (also under a running event loop: ``await aemit()``
    there). A refusal gives a false Receipt; ``strict=True`` raises it, as does the
    broker's ``ON_REFUSED="raise"``.
    """
    if timeout is not None:
        _check_timeout(timeout)
    if on_commit is not False or timeout is not None:
        _refuse_on_loop(on_commit, timeout)
    begun = _begin(
        event, data, key, priority, delay, headers, broker, using, on_commit, strict
    )
    return _end(begun, timeout)


async def aemit(
    event: Event | str,
    data: Any = None,
    /,
    *,
    key: str | None = None,
    priority: int = DEFAULT_PRIORITY,
    delay: float | None = None,
    headers: Mapping[str, str] | None = None,
    broker: str | None = None,
    using: str | None = None,
    on_commit: bool | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - waits for room, as emit() does
    strict: bool | None = None,
) -> Receipt:
    """Emit one event from async code, as ``emit`` does; never blocks the loop.

    The transaction is looked up on the thread where async code reaches the database.
    """
    begin = functools.partial(
        _begin, event, data, key, priority, delay, headers, broker, using, on_commit,
        strict,
    )  # fmt: skip
    if timeout is None:
        return await sync_to_async(lambda: _end(begin(), None), thread_sensitive=True)()
    _check_timeout(timeout)
    # Waiting on that one thread would hold up all database work of the process.
    begun = await sync_to_async(begin, thread_sensitive=True)()
    return await asyncio.to_thread(_end, begun, timeout)


def emit_many(
    events: Iterable[Event | tuple[str, Any]],
    /,
    *,
    key: str | None = None,
    priority: int = DEFAULT_PRIORITY,
    delay: float | None = None,
    headers: Mapping[str, str] | None = None,
    broker: str | None = None,
    using: str | None = None,
    on_commit: bool | None = None,
    timeout: float | None = None,
    strict: bool | None = None,
) -> list[Receipt]:
    """Emit events, typed or as pairs of name and data, as one batch.

    The options are those of ``emit`` and hold for every event. All are checked before
    the first is published; ``timeout`` bounds the whole call.
    """
    if timeout is not None:
        _check_timeout(timeout)
    if on_commit is not False or timeout is not None:
        _refuse_on_loop(on_commit, timeout)
    site = brokers.site
    items = [_pair(event) for event in events]
    if site is None:
        return [_go_nowhere(event) for event, _ in items]
    prepared = [
        prepare(
            site,
            event,
            data,
            key=key,
            priority=priority,
            delay=delay,
            headers=headers,
            broker=broker,
            strict=strict,
        )
        for event, data in items
    ]
    captured = sink()
    connection = find_transaction(site, using, on_commit, captured)
    if captured is not None or connection is not None:
        return [hold(one, connection, captured) for one in prepared]
    publish_all(prepared, timeout)
    return [one.receipt for one in prepared]


def _begin(
    event: Event | str,
    data: Any,
    key: str | None,
    priority: int,
    delay: float | None,
    headers: Mapping[str, str] | None,
    broker: str | None,
    using: str | None,
    on_commit: bool | None,
    strict: bool | None,
) -> Outgoing | Receipt:
    """Return the receipt of an event that waits, or the event to publish now."""
    site = brokers.site
    if site is None:
        return _go_nowhere(event)
    prepared = prepare(
        site,
        event,
        data,
        key=key,
        priority=priority,
        delay=delay,
        headers=headers,
        broker=broker,
        strict=strict,
    )
    captured = sink()
    connection = find_transaction(site, using, on_commit, captured)
    if captured is not None or connection is not None:
        return hold(prepared, connection, captured)
    return prepared


def _end(begun: Outgoing | Receipt, timeout: float | None) -> Receipt:
    return begun if isinstance(begun, Receipt) else publish_now(begun, timeout)


def _pair(event: Event | tuple[str, Any]) -> tuple[Event | str, Any]:
    if not isinstance(event, tuple):
        return event, None
    try:
        name, data = event
    except ValueError:
        raise ConfigurationError(
            f"emit_many() takes events and pairs (name, data), no {len(event)} values."
        ) from None
    return name, data


def _check_timeout(timeout: float) -> None:
    if not isinstance(timeout, int | float) or not math.isfinite(timeout):
        raise ConfigurationError(
            f"timeout is {timeout!r}, not seconds; without one nothing waits."
        )


def _refuse_on_loop(on_commit: bool | None, timeout: float | None) -> None:
    if asyncio._get_running_loop() is None:  # noqa: SLF001 - public, get_running_loop() raises
        return
    if on_commit is False:
        raise ConfigurationError(
            f"emit(timeout={timeout}) would block the event loop: use "
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
