"""Database connections between two handlers of a thread; they know no message."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Final

from django.db import close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper

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
        _close_if_unusable(connection)


def clean_up(*, is_alone: bool = True) -> None:
    """Roll back and report what a handler left open; close what is used up.

    Runs after a handler, on its thread. Raises the last of what closing raised.
    """
    failure: Exception | None = None
    for connection in _made():
        try:
            _clean(connection, is_alone=is_alone)
        except Exception as error:  # noqa: BLE001 - the others are cleaned all the same
            failure = error
    if failure is not None:
        raise failure


def _made() -> Iterable[BaseDatabaseWrapper]:
    return connections.all(initialized_only=True)


def _clean(connection: BaseDatabaseWrapper, *, is_alone: bool) -> None:
    connection.queries_log.clear()  # with DEBUG, the texts of up to 9,000 statements
    status = _status(connection)
    if connection.in_atomic_block or _is_manual(connection) or _IDLE < status < _BROKEN:
        _report_open(connection)
        _drop(connection)
    elif status == _BROKEN:
        connection.close()
    elif is_alone:
        connection.close_if_unusable_or_obsolete()
    else:
        _close_if_unusable(connection)


def _report_open(connection: BaseDatabaseWrapper) -> None:
    if _wants_autocommit(connection):  # else each query begins a transaction
        logger.error(
            "A handler left a transaction of database %r open; it is rolled back",
            connection.alias,
            extra={"gomq_database": connection.alias},
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_pools)
