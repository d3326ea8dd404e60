"""A database connection of the bus's own, and what differs from vendor to vendor."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec
from django.db import (
    DatabaseError,
    DataError,
    InterfaceError,
    OperationalError,
    connections,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.process.fork import Process, current, register

from .limits import Limit

T = TypeVar("T")

_TRIES: Final = 5  # with many processes the next try may end in a deadlock, too
_DEADLOCK: Final = 1213  # of MariaDB and MySQL: the statement's transaction was ended
_INCORRECT_STRING: Final = 1366  # an OperationalError of mysqlclient


SILENCE_SECONDS: Final = 30
"""So long a server waits within a transaction for a process that says nothing, whose
machine may be gone: then it frees what others want. MySQL waits for its connection."""


class Dialect(msgspec.Struct, frozen=True):
    """How one vendor says the few things that SQL leaves to it."""

    now: str
    """Seconds since 1970 as a float, at the moment of the statement."""
    begin: str = "BEGIN"
    lock: str = "FOR UPDATE SKIP LOCKED"
    """Ends a SELECT of rows that are changed next, and leaves out what others hold."""
    joins_statements: bool = False
    """Whether one trip to the server takes several statements without values."""
    has_arrays: bool = False
    """Whether many rows are written fastest from one array for each column."""
    keeps_deleted: bool = False
    """Whether a look at a table goes past what was deleted while others may see it, and
    part of a table can be looked at by LATERAL."""
    has_one_writer: bool = False
    """Whether whoever writes keeps all others from it."""
    has_replace: bool = True
    """Whether REPLACE writes over rows of the same key; if not, ON CONFLICT does."""
    short_wait: str = ""
    """Ends, until the transaction does, a wait for what others hold after seconds."""
    long_wait: str = ""
    """Undoes that."""


DIALECTS: Final = {
    "postgresql": Dialect(
        "extract(epoch FROM clock_timestamp())::float8",
        # One index serves each question of ours. The planner's numbers say otherwise
        # of tables that are empty now and have a million rows then: it would read and
        # sort all of them for each batch.
        begin="BEGIN ISOLATION LEVEL READ COMMITTED; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{SILENCE_SECONDS}s'; "
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off",
        joins_statements=True,
        short_wait="SET LOCAL lock_timeout = '5s'",
        long_wait="SET LOCAL lock_timeout TO DEFAULT",
        has_arrays=True,
        keeps_deleted=True,
        has_replace=False,
    ),
    "mysql": Dialect(
        "timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) / 1e6"
    ),
    # One writer at a time: nobody else can hold a row.
    "sqlite": Dialect(
        "((julianday('now') - 2440587.5) * 86400.0)",
        begin="BEGIN IMMEDIATE",
        lock="",
        has_one_writer=True,
    ),
}
"""By the vendor of Django's connection."""


def check_alias(option: str, alias: object) -> None:
    """Raise ConfigurationError unless it is that of a database with a dialect."""
    if not isinstance(alias, str) or alias not in connections.databases:
        known = ", ".join(sorted(connections.databases))
        raise ConfigurationError(
            f"{option}: there is no database {alias!r:.120}; there are {known}."
        )
    if connections[alias].vendor not in DIALECTS:
        engine = connections.settings[alias]["ENGINE"]
        raise ConfigurationError(
            f"Database {alias!r} is that of {engine!r}; the backend works on "
            f"{', '.join(sorted(DIALECTS))}."
        )


_parents: Final[list[BaseDatabaseWrapper | None]] = []
"""What forked children have inherited. To close one would end it for the parent, and
drivers close what is collected."""


_FORK_SECONDS: Final = 5.0
"""So long a fork waits for a transaction of ours on SQLite."""
_on_sqlite: Final = WeakValueDictionary[int, "OwnConnection"]()
_held_for_fork = threading.local()


def _hold_for_fork() -> None:
    """Let a fork come between our transactions on SQLite.

    What SQLite notes in memory of its locks goes to the child, for which nobody ever
    unlocks: it would find the database locked for ever.
    """
    held: list[OwnConnection] = []
    _held_for_fork.connections = held  # at once: a signal handler may raise between
    for reference in _on_sqlite.valuerefs():
        own = reference()
        if own is not None and own.hold(_FORK_SECONDS):
            held.append(own)


def _go_on_after_fork() -> None:
    held: list[OwnConnection] = _held_for_fork.connections
    while held:
        held.pop().let_go()


getattr(os, "register_at_fork", dict)(
    before=_hold_for_fork,
    after_in_parent=_go_on_after_fork,
    after_in_child=_go_on_after_fork,
)


def is_of_text(error: BaseException) -> bool:
    """Whether a text may be to blame that the database has no characters for."""
    return isinstance(error, (DataError, ValueError)) or error.args[:1] == (
        _INCORRECT_STRING,
    )


def execute_all(
    cursor: CursorWrapper, dialect: Dialect, statements: Sequence[str]
) -> None:
    """Execute statements without values, in as few trips as the server takes."""
    for statement in (
        ["; ".join(statements)] if dialect.joins_statements else statements
    ):
        cursor.execute(statement)


def rows_of(
    cursor: CursorWrapper, dialect: Dialect, statements: Sequence[str]
) -> list[list[tuple[Any, ...]]]:
    """Return what each of these answers; else as ``execute_all``."""
    if not dialect.joins_statements:
        return [_answer(cursor, statement) for statement in statements]
    found = [_answer(cursor, "; ".join(statements))]
    while cursor.nextset():
        found.append(list(cursor.fetchall()))
    return found


def _answer(cursor: CursorWrapper, statement: str) -> list[tuple[Any, ...]]:
    cursor.execute(statement)
    return list(cursor.fetchall())


def _limit_silence(wrapper: Any) -> None:
    """Have MariaDB do what PostgreSQL is told at each BEGIN."""
    if wrapper.vendor == "mysql" and wrapper.mysql_is_mariadb:
        with wrapper.cursor() as cursor:
            cursor.execute(f"SET SESSION idle_transaction_timeout = {SILENCE_SECONDS}")


class OwnConnection:
    """One connection that no request and no handler uses; thread-safe.

    It is opened by the first call that needs it, outside of any pool, and again after
    it broke. One thread at a time has it; others wait. A forked child opens another. A
    call that the server does not answer in time ends as if the connection had broken.
    """

    def __init__(self, alias: str, seconds: float) -> None:
        """``seconds`` is how long a call waits for the server's answer."""
        self._alias = alias
        self._limit = Limit(seconds)
        self._lock = RLock()
        self._wrapper: BaseDatabaseWrapper | None = None
        self._is_left = False
        self._process = current()
        register(self)
        if self.dialect.has_one_writer:
            _on_sqlite[id(self)] = self

    def hold(self, seconds: float) -> bool:
        """Keep other threads from it until ``let_go``; False if they take too long."""
        return self._lock.acquire(timeout=seconds)

    def let_go(self) -> None:
        """End that, in the thread that did it."""
        self._lock.release()

    def after_in_child(self, process: Process) -> None:
        if process is not self._process:
            _parents.append(self._wrapper)
            self._lock, self._wrapper, self._process = RLock(), None, process
            self._is_left = False

    @property
    def dialect(self) -> Dialect:
        """How this vendor speaks."""
        return DIALECTS[connections[self._alias].vendor]

    def run(
        self, step: Callable[[CursorWrapper], T], patience: float | None = None
    ) -> T:
        """Return what a step returns that runs in one transaction.

        Runs it again where the database chose it to end a deadlock. Blocks; raises
        what the database raises, and then nothing of the step was done, or its commit
        was not answered. With ``patience`` it waits for other threads, and where the
        driver can for the server, no longer than so many seconds.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._run_once(step, patience)
            except OperationalError as error:
                if error.args[:1] != (_DEADLOCK,):
                    raise
        return self._run_once(step, patience)

    def _run_once(
        self, step: Callable[[CursorWrapper], T], patience: float | None
    ) -> T:
        with self._cursor(patience) as cursor:
            cursor.execute(self.dialect.begin)
            answer = step(cursor)
            cursor.execute("COMMIT")
            return answer

    def read(self, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one statement, in no transaction. Blocks."""
        with self._cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def change(self, statement: str, values: Any = ()) -> int:
        """Execute one statement by itself; return how many rows it changed. Blocks."""
        with self._cursor() as cursor:
            cursor.execute(statement, values)
            return int(cursor.rowcount)

    def notifications(self, seconds: float) -> list[str]:
        """Return what has come by NOTIFY; blocks so long for the first one.

        It never connects: what listened is gone with its connection, which this raises.
        """
        with self._taken(None):
            if self._wrapper is None:
                raise OperationalError("the connection that listened is closed")
            connection: Any = self._wrapper.connection
            try:
                found = connection.notifies(timeout=seconds, stop_after=1)
                return [each.payload for each in found]
            except BaseException:
                self.close()
                raise

    @contextmanager
    def _cursor(self, patience: float | None = None) -> Iterator[CursorWrapper]:
        with self._taken(patience), self._limit.running(patience):
            try:
                if self._wrapper is None:
                    self._wrapper = self._make()
                    _limit_silence(self._wrapper)
                with self._wrapper.cursor() as cursor:
                    yield cursor
            except BaseException:
                self.close()  # rolls back, and the next call has a whole one
                raise
            if self._is_left:
                with suppress(DatabaseError, InterfaceError):  # all is done
                    self.close()

    @contextmanager
    def _taken(self, patience: float | None) -> Iterator[None]:
        if not self._lock.acquire(timeout=-1 if patience is None else patience):
            raise OperationalError(f"another thread had it for {patience:g} s")
        try:
            yield
        finally:
            self._lock.release()

    def _make(self) -> BaseDatabaseWrapper:
        wrapper: BaseDatabaseWrapper = connections.create_connection(self._alias)
        wrapper.settings_dict = copy.deepcopy(wrapper.settings_dict)
        options = wrapper.settings_dict["OPTIONS"]
        options.pop("pool", None)
        if wrapper.vendor == "mysql":
            # In a claim by "repeatable read" there are locks on what comes next: emits
            # of the site would end in deadlocks.
            options["isolation_level"] = "read committed"
        self._limit.put_on(wrapper)
        wrapper.inc_thread_sharing()  # our lock sees to that
        return wrapper

    def close(self, patience: float | None = None) -> None:
        """Close it; idempotent.

        Waits for other threads; with ``patience`` up to so many seconds, and then
        leaves it to them: each call closes it at its end from then on.
        """
        self._is_left = self._is_left or patience is not None
        with suppress(OperationalError), self._taken(patience):
            wrapper, self._wrapper = self._wrapper, None
            if wrapper is not None:
                wrapper.close()


def two_connections(alias: str, seconds: float) -> tuple[OwnConnection, OwnConnection]:
    """Return one for each of two threads: the same one where one of them can write.

    Of two connections to SQLite one sleeps in steps while the other writes.
    """
    first = OwnConnection(alias, seconds)
    if first.dialect.has_one_writer:
        return first, first
    return first, OwnConnection(alias, seconds)
