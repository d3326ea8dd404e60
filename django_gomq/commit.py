"""Events that wait for a commit, one buffer per transaction."""

from __future__ import annotations

import logging
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from django.utils.connection import ConnectionDoesNotExist

from django_gomq.bus.errors import ConfigurationError, PublishError

logger = logging.getLogger("gomq.emit")


class PendingBatch(msgspec.Struct, frozen=True, eq=False):
    """Events that wait: what to do at the commit, and what at a rollback."""

    items: Sequence[Any]
    """Emitted by one call, so that a savepoint holds all of them or none."""
    publish: Callable[[Sequence[Any], bool], None]
    """Takes the items of all neighbours that have the same function, in order, and
    whether it may wait. Called again if it was interrupted: with False."""
    roll_back: Callable[[Any], None]
    raises: bool = False
    """Whether a PublishError of ``publish`` is to come out of the commit."""


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
        self.raises = False
        """Whether ``refusal`` is to come out of the commit."""
        self.refusal: PublishError | None = None
        self._pending: list[PendingBatch] = []
        self._savepoints: list[int] = []  # how many had begun at each

    def add(self, pending: PendingBatch, savepoints: int) -> None:
        """Append events that were emitted when so many savepoints had begun."""
        self._savepoints.append(savepoints)
        self._pending.append(pending)

    def __contains__(self, savepoint: str) -> bool:
        """Forget what was emitted since that savepoint; never be dropped for it."""
        # Django numbers them, those of atomic() and those made by hand: "s1234_x5".
        number = savepoint.rpartition("_x")[2]
        if number.isdecimal():
            start = bisect_left(self._savepoints, int(number))
            cut = self._pending[start:]
            del self._pending[start:], self._savepoints[start:]
            _roll_back(cut)
        return False

    def flush(self, *, may_wait: bool = True) -> None:
        """Publish everything, one batch for each run of one publish function.

        What is raised meanwhile keeps nothing back: the commit stands.
        """
        self.is_flushed = True
        try:
            # Not a function of its own: what a signal handler raises where a function
            # begins, none of its own try statements catches.
            try:
                self._publish_all(may_wait=may_wait)
            except BaseException:  # a refusal, or a signal handler's
                self._publish_all(may_wait=False)
                raise
        except PublishError as error:
            if not self.raises:
                raise
            error.add_note("The transaction is committed.")
            self.refusal = error

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


def add_pending(
    connections: Sequence[BaseDatabaseWrapper], pending: PendingBatch
) -> None:
    """Have events published when the transactions of all these have committed.

    A rollback of one of them takes the events back.
    """
    if len(connections) == 1:
        _add(connections[0], pending)
        return
    shared = _SharedBatch(pending, len(connections))
    for connection, commit in zip(connections, shared.commits, strict=True):
        _add(
            connection,
            PendingBatch((commit,), _note_commits, _take_back, pending.raises),
        )


class _SharedBatch:
    """Events that wait for the commits of several databases."""

    def __init__(self, pending: PendingBatch, count: int) -> None:
        self.pending = pending
        self.is_taken_back = False
        self.commits = [_AwaitedCommit(self) for _ in range(count)]

    @property
    def is_due(self) -> bool:
        return not self.is_taken_back and all(commit.is_done for commit in self.commits)


class _AwaitedCommit:
    """One of the commits that events wait for."""

    def __init__(self, batch: _SharedBatch) -> None:
        self.batch = batch
        self.is_done = False


def _note_commits(commits: Sequence[_AwaitedCommit], may_wait: bool) -> None:
    for commit in commits:
        commit.is_done = True
    due = [commit.batch.pending for commit in commits if commit.batch.is_due]
    for publish, run in groupby(due, key=attrgetter("publish")):
        publish([item for pending in run for item in pending.items], may_wait)


def _take_back(commit: _AwaitedCommit) -> None:
    if not commit.batch.is_taken_back:
        commit.batch.is_taken_back = True
        _roll_back([commit.batch.pending])


def _add(connection: BaseDatabaseWrapper, pending: PendingBatch) -> None:
    entries: Sequence[Any] = connection.run_on_commit
    latest = entries[-1][0] if entries else None
    # It mostly is the last entry; to look for it takes 1 us.
    buffer = latest if type(latest) is CommitBuffer and not latest.is_flushed else None
    if buffer is None and entries:
        # The first emit of a transaction, as most have one, need not look for it.
        buffer = _find_buffer(connection)
    if buffer is None:
        buffer = CommitBuffer()
        buffer.place = len(connection.run_on_commit)
        # A patch of the instance that was made before and has ended took ours away.
        set_now = vars(connection).get("run_and_clear_commit_hooks")
        if type(set_now) is not _WatchedCallbacks:
            watched = _WatchedCallbacks(connection, set_now)
            connection.run_and_clear_commit_hooks = watched  # type: ignore[method-assign]
        _buffers[connection] = weakref.ref(buffer)
        entry: Any = (buffer, buffer.flush, True)
        connection.run_on_commit.append(entry)
    buffer.raises = buffer.raises or pending.raises
    buffer.add(pending, connection.savepoint_state)


class _WatchedCallbacks:
    """Has commits flush their buffers whatever others' callbacks raise.

    Where a callback raises, Django forgets those behind it. The buffer's own, which
    must not do that to others, raises nothing: its refusal comes out when all have
    run. Stands in the place of the connection's ``run_and_clear_commit_hooks``.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, others: Callable[[], None] | None
    ) -> None:
        """``others`` is what somebody else has put there; None: Django's own."""
        self._of: Callable[[], Any] = weakref.ref(connection)  # no circle
        self._others = others

    def __call__(self) -> None:
        """Run the callbacks, then flush what they did not, then raise a refusal."""
        owner, held = self._of(), list[CommitBuffer]()
        try:
            entries = owner.run_on_commit
            held = [entry[0] for entry in entries if type(entry[0]) is CommitBuffer]
            try:
                owner.validate_no_atomic_block()
            except TransactionManagementError:
                held = []  # as Django runs none inside a block: it has not committed
                raise
            if self._others is None:
                type(owner).run_and_clear_commit_hooks(owner)
            else:
                self._others()
        except BaseException as error:
            _flush_after(error, held)
            raise
        for buffer in held:
            if not buffer.is_flushed:
                buffer.flush()  # it was interrupted as it began
        for buffer in held:
            if buffer.refusal is not None:
                raise buffer.refusal


def _flush_after(error: BaseException, buffers: Sequence[CommitBuffer]) -> None:
    """Flush what no callback did; the error is the one that is raised."""
    for buffer in buffers:
        try:
            if not buffer.is_flushed:
                buffer.flush(may_wait=isinstance(error, Exception))
        except Exception:
            logger.exception("Events of a commit could not be published")
        if buffer.refusal is not None:
            error.add_note(f"And a refusal: {buffer.refusal}")


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

    False also where that takes a closer look, by ``open_transactions``.
    """
    try:
        # As initialized() does, in 100 ns.
        for connection in _local.__dict__.values():
            if connection.in_atomic_block or not connection.autocommit:
                return False
    except AttributeError:
        return False  # asgiref keeps something else there
    return True


def open_transactions(
    using: str | None,
    preferred: str | None = None,
    is_open: Callable[[BaseDatabaseWrapper], bool] | None = None,
) -> Sequence[BaseDatabaseWrapper]:
    """Return the connections whose atomic blocks the caller is in.

    Where ``using`` is None and several are, only the ``preferred`` one if that is among
    them. A block counts only if ``is_open`` says so, where given. Raises
    ConfigurationError for an unknown alias, and where autocommit is off, so that nobody
    hears of a commit: there the end of an atomic block is none.
    """
    made = initialized() if using is None else (_named(using),)
    found: list[BaseDatabaseWrapper] = []
    for block in made:
        if block.in_atomic_block and (is_open is None or is_open(block)):
            found.append(block)  # noqa: PERF401 - a comprehension costs 0.1 us more
    if len(found) > 1:
        found = [block for block in found if block.alias == preferred] or found
    for block in found or made:
        _check_autocommit(block)
    return found


def _check_autocommit(connection: BaseDatabaseWrapper) -> None:
    if connection.in_atomic_block:
        tells = connection.commit_on_exit  # False: begun with autocommit off
    else:
        tells = connection.autocommit or connection.connection is None
    if tells:
        return
    raise ConfigurationError(
        f"Autocommit is off on database {connection.alias!r}, where Django cannot "
        "tell of a commit: switch it on, name another database with using=, or emit "
        "after the commit with on_commit=False."
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
