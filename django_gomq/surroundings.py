"""What Django needs around each handler: clean database connections, transactions."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Sized
from contextvars import ContextVar
from typing import Any, Final, cast

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_gomq.bus.handler import Handler
from django_gomq.bus.host import Care, Host
from django_gomq.bus.threads import is_bus_thread
from django_gomq.connections import begin, clean_up, give_back, let_live, made_here

ASYNC_IDLE_SECONDS: Final = 5.0
"""How long async handlers keep their connections when none of them runs."""


class _Care(Care):
    """Due once the thread has used a database: most handlers never do."""

    def __init__(self) -> None:
        # Only its truth is asked for, and at each message: a property costs 50 ns.
        self.is_due = cast("bool", made_here())

    def before(self) -> None:
        """Close connections that are too old or broken; have the others checked."""
        begin()

    def after(self) -> None:
        """Roll back what the handler left open, and close what is used up."""
        clean_up()


class _AsyncCare:
    """The same for async handlers, which share one thread for all database work.

    Belongs to its loop. What one handler still reads from is not closed because
    another one ends: age is looked at when none runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._made: Sized | None = None
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None  # the loop keeps no reference

    async def before(self) -> None:
        """Run on the loop before a handler."""
        if self._made is None:
            self._made = await sync_to_async(made_here)()
        if self._made:
            await sync_to_async(begin)(is_alone=not self._running)
        self._running += 1

    async def after(self) -> None:
        """Run on the loop after a handler for which ``before`` succeeded."""
        self._running -= 1
        if self._made:
            await sync_to_async(clean_up)(is_alone=not self._running)
            self._wait_for_idleness()

    async def end(self) -> None:
        """Run on the loop before it ends."""
        if self._made:
            await sync_to_async(give_back)()

    def _wait_for_idleness(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(ASYNC_IDLE_SECONDS, self._give_back)

    def _give_back(self) -> None:
        if not self._running:  # else its end comes back here
            self._closing = self.loop.create_task(sync_to_async(give_back)())


_async_care: ContextVar[_AsyncCare | None] = ContextVar("gomq_async_care", default=None)


class _OfThread(threading.local):
    """The care of the current thread."""

    def __init__(self) -> None:
        self.care = _Care()


class DjangoHost(Host):
    """Checks connections before a handler; leaves none in a transaction after it.

    A busy thread keeps its connection from one message to the next, within
    ``CONN_MAX_AGE`` or, where that is 0, for ``KEEP_SECONDS``; one with nothing to do
    gives it back. A pool gets its connection back after each message.
    """

    def __init__(self) -> None:
        self._here = _OfThread()
        self._on_loop: _AsyncCare | None = None
        connection_created.connect(self._note_connection, weak=True)

    def _note_connection(
        self, *, connection: BaseDatabaseWrapper, **signal: object
    ) -> None:
        if is_bus_thread() or _async_care.get() is not None:
            let_live(connection)

    def care(self) -> Care:
        """Return what to do around the handlers of the current thread."""
        return self._here.care

    async def before_async_handler(self) -> None:
        """Do the same on the thread where async handlers reach the database."""
        loop = asyncio.get_running_loop()
        care = self._on_loop
        if care is None or care.loop is not loop:  # another one after a fork
            care = self._on_loop = _AsyncCare(loop)
        _async_care.set(care)
        await care.before()

    async def after_async_handler(self) -> None:
        """Do the same on the thread where async handlers reach the database."""
        care = _async_care.get()
        if care is not None:
            await care.after()

    async def loop_ending(self) -> None:
        """Give the connections of async handlers back."""
        care = self._on_loop
        if care is not None and care.loop is asyncio.get_running_loop():
            await care.end()

    def thread_idle(self) -> None:
        """Give every connection of this thread back."""
        if self._here.care.is_due:
            give_back()

    def in_transaction(self, handler: Handler, using: bool | str) -> Handler:
        """Return the handler, wrapped to run in ``atomic()`` of that database."""
        alias = using if isinstance(using, str) else DEFAULT_DB_ALIAS

        @functools.wraps(handler)
        def handle(message: Any) -> Any:
            with transaction.atomic(using=alias):
                return handler(message)

        return handle
