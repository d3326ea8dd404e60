"""The table of processes: who holds deliveries, and what the dead have left."""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Lock, Thread
from typing import Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import BackendContext
from django_gomq.bus.process.fork import claim_thread
from django_gomq.bus.process.housekeeping import write_log

from .connection import Dialect, OwnConnection
from .rows import (
    MAX_STEP,
    RUNNING,
    SCHEDULED,
    SUSPECT,
    events_by_consumer,
    first_lease,
    lease_of,
    leases_of,
    listed,
)

logger = logging.getLogger("gomq.database")

UNFINISHED: Final = "Process %s of host %s ended with %s unfinished deliveries: %s"
LOST: Final = (
    "This process did not beat for %s s, so that others took over what it held: what "
    "it has in work is handled again"
)
REMEMBERED: Final = 3600.0
"""Seconds in which what an ended process still claimed is looked for."""
ENDED_SECONDS: Final = 7 * 86_400.0
"""Seconds for which the row of an ended process is kept, to be looked into."""
_JOIN_SECONDS: Final = 1.0
CUT_SECONDS: Final = 2.0
"""From the stop of its work to the end of a process, and some more."""
_LEAVE_SECONDS: Final = 5.0


class ProcessRecord:
    """The row of this process, while the others believe it lives; thread-safe.

    A process whose beats stop for longer than a lease is ended by another one, and has
    lost all it held. It finds out at its next beat, and is recorded anew.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = Lock()
        self.id: int | None = None
        self.was_ended = False
        """Whether it was held to be dead, and has not been recorded anew."""
        self._consumers: Sequence[str] = ()
        self._recorded: Sequence[str] = ()
        self._numbers = itertools.count(1)

    def announce(self, consumers: Sequence[str]) -> None:
        """Have these recorded as those that it runs, by ``enter``."""
        self._consumers = consumers

    @property
    def is_entered(self) -> bool:
        """Whether it is recorded, with the consumers that it runs now."""
        return self.id is not None and self._recorded is self._consumers

    def enter(self, connection: OwnConnection) -> None:
        """Record it, or what it runs now."""
        number, consumers = self.id, self._consumers
        if number is not None:
            connection.change(
                "UPDATE gomq_process SET consumers = %s WHERE id = %s",
                (json.dumps(consumers), number),
            )
        else:
            # Not before its commit: nobody would free what an unknown process claims.
            self.id = connection.run(partial(self._insert, dialect=connection.dialect))
            self._numbers, self.was_ended = itertools.count(1), False
        self._recorded = consumers

    def _insert(self, cursor: CursorWrapper, dialect: Dialect) -> int:
        cursor.execute(
            "INSERT INTO gomq_process "
            "(host, pid, owner, consumers, started, heartbeat) "
            f"VALUES (%s, %s, %s, %s, {dialect.now}, {dialect.now})",
            (
                socket.gethostname()[:255],
                os.getpid(),
                self._owner,
                json.dumps(self._consumers),
            ),
        )
        cursor.execute(
            "SELECT max(id) FROM gomq_process WHERE owner = %s", (self._owner,)
        )
        (number,) = cursor.fetchone()
        return int(number)

    def beat(self, connection: OwnConnection) -> bool:
        """Say that it lives; return whether the others still believed so."""
        number = self.id
        if number is None:
            return False
        statement = (
            f"UPDATE gomq_process SET heartbeat = {connection.dialect.now} "
            "WHERE id = %s AND ended IS NULL"
        )
        if connection.change(statement, (number,)):
            return True
        with self._lock:
            if self.id == number:  # else it has been recorded anew meanwhile
                self.id, self.was_ended = None, True
        return False

    def leave(self, cursor: CursorWrapper, dialect: Dialect) -> None:
        """Say that it ends, and give back what handlers still have, to be due soon.

        An orderly end accuses nobody: what it held killed no process. The threads go on
        until the process has ended: nobody else is to begin before.
        """
        if self.id is not None:
            cursor.execute(
                f"UPDATE gomq_delivery SET state = {SCHEDULED}, lease = NULL, "
                f"due = {dialect.now} + %s "
                f"WHERE lease >= %s AND lease < %s AND state = {RUNNING}",
                (CUT_SECONDS, *self.leases),
            )
            cursor.execute(
                f"UPDATE gomq_process SET ended = {dialect.now} WHERE id = %s",
                (self.id,),
            )
            self.id = None

    @property
    def leases(self) -> tuple[int, int]:
        """The lowest lease of this process, and the one above its highest."""
        return leases_of(self.id or 0)

    def next_lease(self) -> int:
        """Return the lease of one more claim."""
        return lease_of(self.id or 0, next(self._numbers))


class Pulse:
    """Beats for a process on a thread and a connection of its own, until it leaves.

    So nothing that the reader or a settlement waits for holds the beats up, and they
    go on in a drain. Idempotent and thread-safe.
    """

    def __init__(
        self,
        record: ProcessRecord,
        connection: OwnConnection,
        seconds: float,
        on_error: Callable[[BaseException], object],
    ) -> None:
        self._record = record
        self._connection = connection
        self._seconds = seconds
        self._on_error = on_error
        self._lock = Lock()
        self._stop: Event | None = None
        self._thread: Thread | None = None
        self._leaves = False

    def start(self) -> None:
        """Beat from now on; not after ``end``, as a reader that is late may ask.

        Raises RuntimeError where no thread can start.
        """
        with self._lock:
            if self._stop is not None or self._leaves:
                return
            stop = Event()
            self._thread = Thread(
                target=self._run, args=(stop,), name="gomq-database-pulse", daemon=True
            )
            self._thread.start()
            self._stop = stop

    def stop(self) -> None:
        """Beat no more. Blocks for a beat under way, for a second at most."""
        self._end_thread(_JOIN_SECONDS)

    def end(self) -> None:
        """Beat no more, and have the process leave.

        Blocks for that, for some seconds where the server is silent; then others will
        find it dead.
        """
        with self._lock:
            self._leaves = True
        self._end_thread(_LEAVE_SECONDS)

    def _end_thread(self, seconds: float) -> None:
        with self._lock:
            stop, self._stop = self._stop, None
            thread = self._thread
        if stop is not None and thread is not None:
            stop.set()
            thread.join(seconds)

    def _run(self, stop: Event) -> None:
        claim_thread()
        is_failing = False
        while not stop.wait(self._seconds):
            try:
                self._record.beat(self._connection)
                is_failing = False
            except BaseException as error:  # noqa: BLE001 - whatever a driver raises
                if not is_failing:  # once for each outage
                    self._on_error(error)
                is_failing = True
        try:
            if self._leaves:
                self._connection.run(self._leave)
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises
            self._on_error(error)
        finally:
            self._connection.close()

    def _leave(self, cursor: CursorWrapper) -> None:
        self._record.leave(cursor, self._connection.dialect)


class Ended(msgspec.Struct, frozen=True):
    """A process that was found dead, and what it held."""

    host: str
    pid: int
    freed: Mapping[str, int]
    """How many deliveries, by consumer."""
    is_new: bool
    """Whether it is found for the first time; else it had claimed something since."""


def rescue(connection: OwnConnection, lease: float, context: BackendContext) -> int:
    """End the processes that have not beaten for a lease, and free what they held.

    Who ends one writes its last words. What a process claimed while it was ended is
    found at a later call. Returns how many were ended.
    """
    count = 0
    for process in _find_dead(connection, lease):
        ended = connection.run(
            partial(_end, dialect=connection.dialect, lease=lease, process=process)
        )
        count += ended.is_new
        if ended.is_new or ended.freed:
            _tell_of_end(ended, context)
    return count


def _tell_of_end(ended: Ended, context: BackendContext) -> None:
    of_each = ", ".join(f"{name} {count}" for name, count in ended.freed.items())
    _warn(
        context,
        UNFINISHED,
        ended.pid,
        ended.host,
        sum(ended.freed.values()),
        of_each or "none",
        gomq_pid=ended.pid,
        gomq_host=ended.host,
        gomq_left=ended.freed,
    )


def tell_of_loss(lease: float, context: BackendContext) -> None:
    """Write that this process was held to be dead."""
    _warn(context, LOST, lease)


def _warn(
    context: BackendContext, text: str, *values: object, **fields: object
) -> None:
    fields["gomq_broker"] = context.broker
    context.hooks.hand_over(
        partial(write_log, logger, logging.WARNING, text, *values, fields=fields)
    )


_DEAD: Final = (
    "SELECT id, host, pid, ended FROM gomq_process process "
    "WHERE (ended IS NULL AND heartbeat < {now} - %s) OR (ended > {now} - %s "
    "AND EXISTS (SELECT 1 FROM gomq_delivery delivery "
    "WHERE delivery.lease >= process.id * %s "
    "AND delivery.lease < (process.id + 1) * %s))"
)


def _find_dead(connection: OwnConnection, lease: float) -> list[tuple[int, str, int]]:
    """Return id, host and pid of each process that is dead and not buried yet.

    It has not beaten for a lease, or has claimed something while it was ended.
    """
    statement = _DEAD.format(now=connection.dialect.now)
    rows = connection.read(
        statement, (lease, REMEMBERED, first_lease(1), first_lease(1))
    )
    return [(number, host, pid) for number, host, pid, _ in rows]


def _end(
    cursor: CursorWrapper,
    dialect: Dialect,
    lease: float,
    process: tuple[int, str, int],
) -> Ended:
    """End a dead process, and free what it held; only one of many ends it anew."""
    number, host, pid = process
    cursor.execute(
        f"UPDATE gomq_process SET ended = {dialect.now} "
        f"WHERE id = %s AND ended IS NULL AND heartbeat < {dialect.now} - %s",
        (number, lease),
    )
    is_new = bool(cursor.rowcount)
    cursor.execute("SELECT ended FROM gomq_process WHERE id = %s", (number,))
    (ended,) = cursor.fetchone() or (None,)
    freed = _free(cursor, dialect, number) if ended is not None else {}
    return Ended(host, pid, freed, is_new)


def _free(cursor: CursorWrapper, dialect: Dialect, process: int) -> dict[str, int]:
    cursor.execute(
        "SELECT event_id, consumer_id FROM gomq_delivery "
        f"WHERE lease >= %s AND lease < %s AND state = {RUNNING} {dialect.lock}",
        leases_of(process),
    )
    rows = [(row[0], row[1]) for row in cursor.fetchall()]
    if not rows:
        return {}
    for consumer, events in events_by_consumer(rows).items():
        cursor.execute(
            f"UPDATE gomq_delivery SET state = {SUSPECT}, lease = NULL, "
            f"deaths = deaths + 1 WHERE consumer_id = %s "
            f"AND event_id IN {listed(events)}",
            (consumer,),
        )
    cursor.execute("SELECT id, name FROM gomq_consumer ORDER BY id")
    counts = Counter(consumer for _, consumer in rows)
    return {
        name: counts[number] for number, name in cursor.fetchall() if number in counts
    }


def forget(cursor: CursorWrapper, dialect: Dialect) -> int:
    """Delete rows of processes that ended long ago; return how many.

    One that still holds something stays until that is free.
    """
    cursor.execute(
        "SELECT id FROM gomq_process process "
        f"WHERE ended < {dialect.now} - %s AND NOT EXISTS "
        "(SELECT 1 FROM gomq_delivery delivery WHERE delivery.lease >= process.id * %s "
        "AND delivery.lease < (process.id + 1) * %s) "
        f"ORDER BY ended LIMIT {MAX_STEP} {dialect.lock}",
        (ENDED_SECONDS, first_lease(1), first_lease(1)),
    )
    rows = cursor.fetchall()
    if rows:
        cursor.execute(
            f"DELETE FROM gomq_process WHERE id IN {listed(row[0] for row in rows)}"
        )
    return len(rows)
