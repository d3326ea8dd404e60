"""What Django needs around each handler: clean database connections, transactions."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final, cast

from asgiref.sync import SyncToAsync, sync_to_async
from django.apps import apps
from django.db import (
    close_old_connections,
    connections,
    router,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.module_loading import import_string

from django_gomq.bus.channels.spilling import SpillStore
from django_gomq.bus.declarations.handler import Handler
from django_gomq.bus.process.fork import is_bus_thread
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.worker.environment import Environment, ThreadScope
from django_gomq.transactions import in_transaction

logger = logging.getLogger("gomq.database")

KEEP_SECONDS: Final = 60.0
"""The longest life of a handler's connection where CONN_MAX_AGE is 0."""

_PSYCOPG_POOL_SIZE: Final = 4  # its default
_IDLE, _OPEN, _BROKEN = 0, 2, 4  # PGTransactionStatusType of libpq


def made_here() -> Sized:
    """Return what is empty until Django makes a connection object on this thread.

    It is a live view: any thread may ask for its truth, in 20 ns, at each message. A
    signal would not do: a connection that breaks while Django sets it up sends none.
    """
    # Django keeps them in an asgiref Local that is a threading.local underneath.
    if isinstance(_local, threading.local):
        return _local.__dict__
    return (None,)  # asgiref keeps them elsewhere: there may always be one


_local = getattr(connections._connections, "_storage", None)  # type: ignore[attr-defined]  # noqa: SLF001


def let_live(connection: BaseDatabaseWrapper) -> None:
    """Have Django close a new connection later than after the first message.

    To open one costs milliseconds, each time. Not one of a pool: that costs little to
    take again, and while a busy thread kept it, another one might wait for it in vain.
    """
    settings = connection.settings_dict
    if settings["CONN_MAX_AGE"] == 0 and not settings["OPTIONS"].get("pool"):
        connection.close_at = time.monotonic() + KEEP_SECONDS


LOCK_SECONDS: Final = 30.0
"""How long a handler's SQLite connection waits for the lock, where nobody says so.

Longer than a request would (5 s): among many who wait, SQLite lets chance decide.
"""


def lock_early(connection: BaseDatabaseWrapper) -> None:
    """Have a new SQLite connection begin transactions with the lock to write.

    Otherwise one that reads first and then writes fails at once, whatever the timeout,
    where somebody wrote in between. A ``transaction_mode``, or a ``timeout``, in
    DATABASES wins.
    """
    if connection.vendor != "sqlite":
        return
    options, sqlite = connection.settings_dict["OPTIONS"], cast("Any", connection)
    if "transaction_mode" not in options:
        sqlite.transaction_mode = "IMMEDIATE"
    if "timeout" not in options:
        milliseconds = int(LOCK_SECONDS * 1000)
        sqlite.connection.execute(f"PRAGMA busy_timeout = {milliseconds}")


def locks_late(connection: BaseDatabaseWrapper) -> bool:
    """Whether it is SQLite, and transactions of requests begin without that lock."""
    mode = connection.settings_dict["OPTIONS"].get("transaction_mode")
    return connection.vendor == "sqlite" and str(mode).upper() not in _EARLY_MODES


_EARLY_MODES: Final = frozenset({"IMMEDIATE", "EXCLUSIVE"})


def pool_size(entry: Mapping[str, Any]) -> int:
    """Return how many connections the pool of a DATABASES entry has; 0 without one."""
    pool = entry.get("OPTIONS", {}).get("pool")
    if not pool:
        return 0
    chosen = pool if isinstance(pool, Mapping) else {}
    size = chosen.get("max_size") or chosen.get("min_size", _PSYCOPG_POOL_SIZE)
    return int(size)


def begin(*, is_alone: bool = True) -> None:
    """Close what is too old or broken; have the rest checked, if Django is to.

    Runs before a handler, on its thread. Blocks only to check what failed before.
    Where others are at work on this thread (not ``is_alone``), age does not count.
    """
    if is_alone:
        close_old_connections()  # this also arms CONN_HEALTH_CHECKS
        return
    for connection in _made():
        if not _is_open(connection):
            _close_if_unusable(connection)


def clean_up(
    *,
    is_alone: bool = True,
    is_held: Callable[[BaseDatabaseWrapper], bool] | None = None,
) -> None:
    """Roll back and report what a handler left open; close what is used up.

    Runs after a handler, on its thread. What ``is_held`` says of an open transaction is
    whether others at work on this thread may still end it. Raises the last of what
    closing raised.
    """
    failure: Exception | None = None
    for connection in _made():
        try:
            if is_held is None or not is_held(connection):
                _clean(connection, is_alone=is_alone)
        except Exception as error:  # noqa: BLE001 - the others are cleaned all the same
            failure = error
    if failure is not None:
        raise failure


def _made() -> Iterable[BaseDatabaseWrapper]:
    return connections.all(initialized_only=True)


def _clean(connection: BaseDatabaseWrapper, *, is_alone: bool) -> None:
    connection.queries_log.clear()  # with DEBUG, the texts of up to 9,000 statements
    if _is_open(connection):
        _report_open(connection)
        _drop(connection)
    elif _status(connection) == _BROKEN:
        connection.close()
    elif is_alone:
        connection.close_if_unusable_or_obsolete()
    else:
        _close_if_unusable(connection)


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    return (
        connection.in_atomic_block
        or _is_manual(connection)
        or _IDLE < _status(connection) < _BROKEN
    )


def _report_open(connection: BaseDatabaseWrapper) -> None:
    if _wants_autocommit(connection):  # else each query begins a transaction
        write_log(
            logger,
            logging.ERROR,
            "A handler left a transaction of database %r open; it is rolled back",
            connection.alias,
            fields={"gomq_database": connection.alias},
        )


def give_back() -> None:
    """Close the connections of a thread that has nothing to do."""
    connections.close_all()
    for connection in list(_made()):
        if connection.connection is None:
            del connections[connection.alias]  # nothing is left to look after


def _close_if_unusable(connection: BaseDatabaseWrapper) -> None:
    """Leave an old one, or one of a pool, to the handlers that use it now."""
    close_at, connection.close_at = connection.close_at, None
    connection.close_if_unusable_or_obsolete()
    if connection.connection is not None:
        connection.close_at = close_at


def _status(connection: BaseDatabaseWrapper) -> int:
    """Return what the driver knows, without asking the server.

    A handler may end, or begin, a transaction behind Django's back.
    """
    raw: Any = connection.connection
    if raw is None:
        return _IDLE
    try:
        status = getattr(getattr(raw, "info", None), "transaction_status", None)
        if status is None:  # it is not psycopg; sqlite3 has this, and raises if closed
            status = _OPEN if getattr(raw, "in_transaction", False) else _IDLE
    except Exception:  # noqa: BLE001 - whatever a driver raises
        status = _BROKEN
    return int(status)


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    is_connected = connection.connection is not None
    return is_connected and not connection.autocommit and _wants_autocommit(connection)


def _wants_autocommit(connection: BaseDatabaseWrapper) -> bool:
    wanted: Callable[..., Any] | bool = connection.settings_dict["AUTOCOMMIT"]
    return bool(wanted)


def _drop(connection: BaseDatabaseWrapper) -> None:
    # close() waits for the end of an atomic block that will never come.
    connection.in_atomic_block = connection.closed_in_transaction = False
    connection.savepoint_ids.clear()
    connection.atomic_blocks.clear()
    connection.needs_rollback = False
    connection.close()


_inherited: list[dict[str, Any]] = []  # to end a pool would end the parent's sessions


def _leave_pools() -> None:
    """Have a child make pools of its own: the parent's threads and sockets stay there.

    Django keeps a pool for each alias in the process, also after a fork.
    """
    module = sys.modules.get("django.db.backends.postgresql.base")
    pools = getattr(getattr(module, "DatabaseWrapper", None), "_connection_pools", None)
    if pools:
        _inherited.append(dict(pools))
        pools.clear()


def _renew_async_thread() -> None:
    """Have a child make the thread of its async code: asgiref waits for the parent's.

    That is the one on which ``sync_to_async`` runs what may touch a database.
    """
    SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_pools)
    os.register_at_fork(after_in_child=_renew_async_thread)


ASYNC_IDLE_SECONDS: Final = 5.0
"""How long async handlers keep their connections when none of them runs."""


class _DatabaseScope(ThreadScope):
    """Due once the thread has used a database: most handlers never do."""

    def __init__(self) -> None:
        # Only its truth is asked for, and at each message: a property costs 50 ns.
        self.is_needed = cast("bool", made_here())

    def before(self) -> None:
        """Close connections that are too old or broken; have the others checked."""
        begin()

    def after(self) -> None:
        """Roll back what the handler left open, and close what is used up."""
        clean_up()


class _HeldTransactions:
    """Who may have opened the transactions that are open when an async handler ends.

    It may be any that ran when the transaction was first seen, as all have one
    connection, and one may hold a transaction over an await. Belongs to one thread.
    """

    def __init__(self) -> None:
        self._seen: dict[BaseDatabaseWrapper, tuple[object, Collection[object]]] = {}
        self._has_told = False

    def may_be_of(
        self, running: Collection[object], connection: BaseDatabaseWrapper
    ) -> bool:
        """Whether this connection is in a transaction that one of these may end."""
        if not _is_open(connection):
            self._seen.pop(connection, None)
            return False
        # Of one that was begun by hand no more is known than where.
        block = next(iter(connection.atomic_blocks), connection)
        known, suspects = self._seen.get(connection, (None, ()))
        suspects = running if known is not block else set(suspects) & set(running)
        self._seen[connection] = block, suspects
        if suspects and not self._has_told:
            self._has_told = True
            _report_held(connection)
        return bool(suspects)


def _report_held(connection: BaseDatabaseWrapper) -> None:
    write_log(
        logger,
        logging.WARNING,
        "A transaction of database %r is open over an await of an async handler: what "
        "other async handlers write meanwhile is part of it. Run what belongs "
        "together in one sync function, by sync_to_async; this is said once",
        connection.alias,
        fields={"gomq_database": connection.alias},
    )


class _AsyncDatabaseScope:
    """The same for async handlers, which share one thread for all database work.

    Belongs to its loop. What one handler still reads from is not closed because
    another one ends, nor is its transaction rolled back.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._made: Sized | None = None
        self._running: set[object] = set()
        self._held = _HeldTransactions()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None  # the loop keeps no reference

    async def before(self) -> object:
        """Run on the loop before a handler; return what stands for it."""
        if self._made is None:
            self._made = await sync_to_async(made_here)()
        if self._made:
            await sync_to_async(begin)(is_alone=not self._running)
        handler = object()
        self._running.add(handler)
        return handler

    async def after(self, handler: object) -> None:
        """Run on the loop after a handler for which ``before`` succeeded."""
        self._running.discard(handler)
        if self._made:
            running = frozenset(self._running)
            await sync_to_async(clean_up)(
                is_alone=not running,
                is_held=functools.partial(self._held.may_be_of, running),
            )
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


_async_handler: ContextVar[tuple[_AsyncDatabaseScope, object] | None] = ContextVar(
    "gomq_async_handler", default=None
)
"""The async handler of this context, and what cares for its connections."""


class _OfThread(threading.local):
    """The scope of the current thread."""

    def __init__(self) -> None:
        self.scope = _DatabaseScope()


SPILL_STORE: Final = "django_gomq.backends.database.spill.DatabaseSpillStore"


def spill_database() -> str | None:
    """Return the alias of the database that routers keep spilled messages in.

    None where that is no PostgreSQL, MySQL, MariaDB or SQLite.
    """
    using: str = router.db_for_write(apps.get_model("gomq", "SpilledMessage"))
    has_dialect = connections[using].vendor in ("postgresql", "mysql", "sqlite")
    return using if has_dialect else None


class DjangoEnvironment(Environment):
    """Checks connections before a handler; leaves none in a transaction after it.

    A busy thread keeps its connection from one message to the next, within
    ``CONN_MAX_AGE`` or, where that is 0, for ``KEEP_SECONDS``; one with nothing to do
    gives it back. A pool gets its connection back after each message. Transactions of
    SQLite take the lock to write as they begin.
    """

    def __init__(self) -> None:
        self._here = _OfThread()
        self._on_loop: _AsyncDatabaseScope | None = None
        connection_created.connect(self._note_connection, weak=True)

    def _note_connection(
        self, *, connection: BaseDatabaseWrapper, **signal: object
    ) -> None:
        if is_bus_thread() or _async_handler.get() is not None:
            let_live(connection)
            lock_early(connection)

    def make_spill_store(self, broker: str) -> SpillStore | None:
        """Return the table of spilled messages, if there is a database for it."""
        using = spill_database()
        if using is None:
            return None
        make: Callable[..., SpillStore] = import_string(SPILL_STORE)
        return make(broker, using=using)

    def thread_scope(self) -> ThreadScope:
        """Return what to do around the handlers of the current thread."""
        return self._here.scope

    async def before_async_handler(self) -> None:
        """Do the same on the thread where async handlers reach the database."""
        loop = asyncio.get_running_loop()
        scope = self._on_loop
        if scope is None or scope.loop is not loop:  # another one after a fork
            scope = self._on_loop = _AsyncDatabaseScope(loop)
        _async_handler.set((scope, None))
        _async_handler.set((scope, await scope.before()))

    async def after_async_handler(self) -> None:
        """Do the same on the thread where async handlers reach the database."""
        running = _async_handler.get()
        if running is not None:
            scope, handler = running
            await scope.after(handler)

    async def loop_ending(self) -> None:
        """Give the connections of async handlers back."""
        scope = self._on_loop
        if scope is not None and scope.loop is asyncio.get_running_loop():
            await scope.end()

    def thread_idle(self) -> None:
        """Give every connection of this thread back."""
        if self._here.scope.is_needed:
            give_back()

    def in_transaction(self, handler: Handler, using: bool | str) -> Handler:
        """Return the handler, wrapped to run in ``atomic()`` of that database."""
        return in_transaction(handler, using)
