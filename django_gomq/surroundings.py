"""What Django needs around each handler: clean database connections, transactions."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_gomq.bus.consumer import Handler
from django_gomq.bus.host import Care, Host

logger = logging.getLogger("gomq.database")

_in_async_handler: ContextVar[bool] = ContextVar("gomq_in_async_handler", default=False)


class _Care(Care):
    """Due once the thread has opened a connection: most handlers never do."""

    def before(self) -> None:
        """Close connections that are too old or broken."""
        close_old_connections()

    def after(self) -> None:
        """Roll back what the handler left open, and close what is used up."""
        _clean_up()


class _OfThread(threading.local):
    """The care of the current thread."""

    def __init__(self) -> None:
        self.care = _Care()


class DjangoHost(Host):
    """Checks connections before a handler; leaves none in a transaction after it."""

    def __init__(self) -> None:
        self._here = _OfThread()
        self._async_connected = False
        connection_created.connect(self._note_connection, weak=True)

    def _note_connection(self, **signal: object) -> None:
        self._here.care.is_due = True
        if _in_async_handler.get():
            self._async_connected = True

    def care(self) -> Care:
        """Return what to do around the handlers of the current thread."""
        return self._here.care

    async def before_async_handler(self) -> None:
        """Do the same on the thread where async handlers reach the database."""
        _in_async_handler.set(True)
        if self._async_connected:
            await sync_to_async(close_old_connections)()

    async def after_async_handler(self) -> None:
        """Do the same on the thread where async handlers reach the database."""
        if self._async_connected:
            await sync_to_async(_clean_up)()

    def thread_idle(self) -> None:
        """Give every connection of this thread back."""
        care = self._here.care
        if care.is_due:
            connections.close_all()
            care.is_due = False

    def in_transaction(self, handler: Handler, using: bool | str) -> Handler:
        """Return the handler, wrapped to run in ``atomic()`` of that database."""
        alias = using if isinstance(using, str) else DEFAULT_DB_ALIAS

        @functools.wraps(handler)
        def handle(message: Any) -> Any:
            with transaction.atomic(using=alias):
                return handler(message)

        return handle


def _clean_up() -> None:
    _end_open_transactions()
    close_old_connections()


def _end_open_transactions() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block or _is_manual(connection):
            logger.error(
                "A handler left a transaction of database %r open; it is rolled back",
                connection.alias,
                extra={"gomq_database": connection.alias},
            )
            _drop(connection)


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    wanted: Callable[..., Any] | bool = connection.settings_dict["AUTOCOMMIT"]
    is_connected = connection.connection is not None
    return bool(wanted) and is_connected and not connection.autocommit


def _drop(connection: BaseDatabaseWrapper) -> None:
    # close() waits for the end of an atomic block that will never come.
    connection.in_atomic_block = False
    connection.savepoint_ids.clear()
    connection.atomic_blocks.clear()
    connection.needs_rollback = False
    connection.close()
