"""Events that wait for a commit, one buffer per transaction."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.connection import ConnectionDoesNotExist

from django_gomq.bus.errors import ConfigurationError


class PendingBatch(msgspec.Struct, frozen=True, eq=False):
    """Events that wait: what to do at the commit, and what at a rollback."""

    items: Sequence[Any]
    """Emitted by one call, so that a savepoint holds all of them or none."""
    publish: Callable[[Sequence[Any], bool], None]
    """Takes the items of all neighbours that have the same function, in order, and
    whether it may wait. Called again if it was interrupted: with False."""
    roll_back: Callable[[Any], None]


# One on_commit() callback per event would be quadratic: at a rollback to a savepoint
# Django copies the list of callbacks (11.9 s for 10,000 events and 100 savepoints).
# Django keeps (savepoint ids, callback, robust) in connection.run_on_commit, and at a
# rollback to savepoint S drops the entries where "S in savepoint ids". The buffer
# itself stands in the place of these ids: it is asked, cuts itself back, and stays.
# When the whole transaction is rolled back, Django forgets the list, and the buffer
# dies.
class CommitBuffer:
    """The pending events of one transaction of one connection, in their order.

    Belongs to the thread of its connection, as the connection does.
    """

    def __init__(self) -> None:
        self.is_flushed = False
        self.place = 0
        """Where it stands in ``run_on_commit``, or stood before a rollback."""
        self._pending: list[PendingBatch] = []
        self._starts: dict[str, int] = {}  # savepoint -> events before it

    def add(self, pending: PendingBatch, savepoints: Sequence[str | None]) -> None:
        """Append events that were emitted inside these savepoints."""
        for savepoint in savepoints:
            if savepoint is not None and savepoint not in self._starts:
                self._starts[savepoint] = len(self._pending)
        self._pending.append(pending)

    def __contains__(self, savepoint: str) -> bool:
        """Forget what was emitted since that savepoint; never be dropped for it."""
        start = self._starts.pop(savepoint, None)
        if start is not None:
            cut = self._pending[start:]
            del self._pending[start:]
            _roll_back(cut)
        return False

    def flush(self) -> None:
        """Publish everything, one batch for each run of one publish function.

        What is raised meanwhile keeps nothing back: the commit stands.
        """
        self.is_flushed = True
        try:
            self._publish_all(may_wait=True)
        except BaseException:  # a refusal, or a signal handler's
            self._publish_all(may_wait=False)
            raise

    def _publish_all(self, *, may_wait: bool) -> None:
        pending = self._pending
        while pending:
            publish = pending[0].publish
            others = (at for at, held in enumerate(pending) if held.publish != publish)
            end = next(others, len(pending))
            publish([item for held in pending[:end] for item in held.items], may_wait)
            del pending[:end]

    def __del__(self) -> None:
        """Tell what the rollback of the whole transaction took back."""
        _roll_back(self._pending)


def _roll_back(pending: Sequence[PendingBatch]) -> None:
    for held in pending:
        for item in held.items:
            held.roll_back(item)


# The only strong reference to a buffer is Django's, in run_on_commit.
_buffers: weakref.WeakKeyDictionary[
    BaseDatabaseWrapper, weakref.ReferenceType[CommitBuffer]
] = weakref.WeakKeyDictionary()


def add_pending(connection: BaseDatabaseWrapper, pending: PendingBatch) -> None:
    """Have events published when this connection's transaction commits."""
    entries: Sequence[Any] = connection.run_on_commit
    latest = entries[-1][0] if entries else None
    if type(latest) is CommitBuffer and not latest.is_flushed:
        # It mostly is the last entry; to look for it takes 1 us.
        latest.add(pending, connection.savepoint_ids)
        return
    # The first emit of a transaction, as most have one, need not look for it.
    buffer = _find_buffer(connection) if entries else None
    if buffer is None:
        buffer = CommitBuffer()
        buffer.place = len(connection.run_on_commit)
        _buffers[connection] = weakref.ref(buffer)
        entry: Any = (buffer, buffer.flush, True)
        connection.run_on_commit.append(entry)
    buffer.add(pending, connection.savepoint_ids)


def _find_buffer(connection: BaseDatabaseWrapper) -> CommitBuffer | None:
    """Return the buffer of the transaction that is open now, if it has one.

    While callbacks run after a commit, Django still holds that transaction's buffer,
    and a callback may open a transaction of its own. A flushed buffer may still stand
    in the list too: ``captureOnCommitCallbacks`` runs callbacks and leaves them.
    """
    reference = _buffers.get(connection)
    buffer = reference() if reference is not None else None
    if buffer is None or buffer.is_flushed:
        return None
    entries: Sequence[Any] = connection.run_on_commit
    # It only ever moves down, where a rollback dropped callbacks before it.
    place = min(buffer.place, len(entries) - 1)
    while place >= 0 and entries[place][0] is not buffer:
        place -= 1
    buffer.place = max(place, 0)
    return buffer if place >= 0 else None


def is_outside_transactions() -> bool:
    """Whether no database of this thread has a transaction open: all emits ask.

    False also where that takes a closer look, by ``open_transaction``.
    """
    try:
        # As initialized() does, in 100 ns.
        for connection in _local.__dict__.values():
            if connection.in_atomic_block or not connection.autocommit:
                return False
    except AttributeError:
        return False  # asgiref keeps something else there
    return True


def open_transaction(
    using: str | None,
    is_open: Callable[[BaseDatabaseWrapper], bool] | None = None,
) -> BaseDatabaseWrapper | None:
    """Return the connection whose atomic block the caller is in, None if in none.

    A block counts only if ``is_open`` says so, where given.
    Raises ConfigurationError for an unknown alias, if ``using`` is None and several
    databases have one, and where autocommit is off, so that nobody hears of a commit.
    """
    made = initialized() if using is None else (_named(using),)
    found: BaseDatabaseWrapper | None = None
    for block in made:
        if block.in_atomic_block and (is_open is None or is_open(block)):
            if found is not None:
                _refuse_several(found, block)
            found = block
    if found is not None:
        return found
    for block in made:
        is_manual = not block.in_atomic_block and not block.autocommit
        if is_manual and block.connection is not None:
            _refuse_manual(block)
    return None


def _refuse_several(one: BaseDatabaseWrapper, other: BaseDatabaseWrapper) -> NoReturn:
    raise ConfigurationError(
        "Transactions of several databases are open here, such as those of "
        f"{one.alias!r} and {other.alias!r}: say which commit to wait for with using=, "
        "or on_commit=False for none."
    )


def _refuse_manual(connection: BaseDatabaseWrapper) -> NoReturn:
    raise ConfigurationError(
        f"Autocommit is off on database {connection.alias!r}, where Django cannot "
        "tell of a commit: use atomic(), name another database with using=, or "
        "publish at once with on_commit=False."
    )


def _named(alias: str) -> BaseDatabaseWrapper:
    try:
        return connections[alias]
    except (ConnectionDoesNotExist, TypeError):
        known = ", ".join(map(repr, connections))
        raise ConfigurationError(
            f"using={alias!r} names no database; there are {known}."
        ) from None


def initialized() -> Collection[BaseDatabaseWrapper]:
    """Return the connections that this thread has made so far.

    Django keeps them in an asgiref Local, which is a plain ``threading.local`` while
    no event loop runs. Its dict tells in 0.1 us what ``connections.all()`` takes 4 us
    for, and every emit asks.
    """
    made = _local.__dict__
    if "cvar" in made or not _is_plain:
        return connections.all(initialized_only=True)
    return made.values()


_local = getattr(connections._connections, "_storage", None)  # type: ignore[attr-defined]  # noqa: SLF001
_is_plain = isinstance(_local, threading.local)
