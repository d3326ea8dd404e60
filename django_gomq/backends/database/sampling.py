"""Counts what waits in the tables: how much, for how long, and who works on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from django_gomq.bus.stats import ServerProcess, ServerSample, ServerStats

from .connection import OwnConnection
from .recording import RECORDED, Recorded, recorded_in
from .rows import MAX_PARTS, READY, RUNNING, SCHEDULED, SUSPECT, listed

MAX_COUNT: Final = 100_000
"""Rows that are counted of one kind: so many wait, or more. A backlog of millions must
not cost a scan of millions every few seconds."""
ALL_CONSUMERS: Final = 2
"""So many times that are counted of all consumers, but of each a tenth of it."""


class _Waiting(msgspec.Struct, frozen=True):
    """Some of what waits for one consumer, in one state."""

    count: int
    age: float = 0.0
    """For how long the oldest has been due, in seconds."""
    made_age: float = 0.0
    """How long ago the oldest was emitted, where that is known."""


def sample(connection: OwnConnection, lease: float, found_dead: int) -> ServerSample:
    """Return what waits for each recorded consumer, and the processes that live.

    What stands in the outbox waits for all consumers of its type. Blocks; locks
    nothing.
    """
    consumers = recorded_in(connection.read(RECORDED))
    outbox = _outbox(connection)
    # In this order: what is dispatched meanwhile is counted twice, and never missed.
    deliveries = _deliveries(connection, [consumer.id for consumer in consumers])
    dead = _dead_letters(connection, [consumer.name for consumer in consumers])
    processes, workers = _processes(connection, lease)
    return ServerSample(
        consumers={
            consumer.name: _of(
                consumer,
                deliveries,
                outbox,
                dead.get(consumer.name, 0),
                workers[consumer.name],
            )
            for consumer in consumers
        },
        outbox_depth=sum(waiting.count for waiting in outbox.values()),
        outbox_oldest_age=max(
            (queue.made_age for queue in outbox.values()), default=0.0
        ),
        processes=processes,
        found_dead=found_dead,
    )


def _of(
    consumer: Recorded,
    deliveries: Mapping[tuple[int, int], _Waiting],
    outbox: Mapping[tuple[str, bool], _Waiting],
    dead: int,
    workers: int,
) -> ServerStats:
    mine = {
        is_due: [
            waiting
            for (event_type, due), waiting in outbox.items()
            if due is is_due and consumer.wants(event_type)
        ]
        for is_due in (True, False)
    }
    nothing = _Waiting(0)
    ready = [deliveries.get((consumer.id, state), nothing) for state in _DUE]
    ready += mine[True]
    scheduled = [deliveries.get((consumer.id, SCHEDULED), nothing), *mine[False]]
    return ServerStats(
        ready=sum(waiting.count for waiting in ready),
        held=deliveries.get((consumer.id, RUNNING), nothing).count,
        scheduled=sum(waiting.count for waiting in scheduled),
        dead=dead,
        oldest_age=max(waiting.age for waiting in ready),
        workers=workers,
    )


_DUE: Final = (READY, SUSPECT)
_COUNT: Final = (
    "SELECT {consumer}, {state}, count(*), {now} - min(due), "
    "min(CASE WHEN due IS NULL THEN event_id END) FROM ("
    "SELECT due, event_id FROM gomq_delivery "
    "WHERE consumer_id = {consumer} AND state = {state} "
    "ORDER BY precedence, event_id LIMIT {limit}) AS waiting"
)


def _deliveries(
    connection: OwnConnection, consumers: Sequence[int]
) -> Mapping[tuple[int, int], _Waiting]:
    """Return what waits, by consumer and state.

    What was never delayed is as old as its event, and the lowest number is the oldest.
    """
    now = connection.dialect.now
    share = ALL_CONSUMERS * MAX_COUNT // max(1, len(consumers))
    limit = min(MAX_COUNT, max(MAX_COUNT // 10, share))
    parts = [
        _COUNT.format(consumer=consumer, state=state, now=now, limit=limit)
        for consumer in consumers
        for state in (READY, SUSPECT, SCHEDULED, RUNNING)
    ]
    rows = list(_united(connection, parts))
    events = {row[4] for row in rows if row[4] is not None}
    ages = (
        dict(
            connection.read(
                f"SELECT id, {now} - made FROM gomq_event WHERE id IN {listed(events)}"
            )
        )
        if events
        else {}
    )
    return {
        (consumer, state): _Waiting(
            count, max(0.0, float(due_age or 0.0), float(ages.get(oldest, 0.0)))
        )
        for consumer, state, count, due_age, oldest in rows
    }


def _outbox(connection: OwnConnection) -> Mapping[tuple[str, bool], _Waiting]:
    """Return what is to be dispatched, by type and whether it is due."""
    now = connection.dialect.now
    rows = connection.read(
        "SELECT type, CASE WHEN due <= now THEN 1 ELSE 0 END AS is_due, count(*), "
        "max(now - due), max(now - made) FROM ("
        f"SELECT type, made, made + delay AS due, {now} AS now FROM gomq_outbox "
        f"ORDER BY precedence, id LIMIT {MAX_COUNT}) AS waiting GROUP BY type, is_due"
    )
    return {
        (event_type, bool(is_due)): _Waiting(
            count, max(0.0, float(due_age)), max(0.0, float(made_age))
        )
        for event_type, is_due, count, due_age, made_age in rows
    }


def _dead_letters(connection: OwnConnection, consumers: Sequence[str]) -> Counter[str]:
    part = (
        "SELECT %s, count(*) FROM (SELECT 1 AS one FROM gomq_dead_letter "
        f"WHERE consumer = %s AND event_id IS NOT NULL LIMIT {MAX_COUNT}) AS letters"
    )
    values = [(name, name) for name in consumers]
    rows = _united(connection, [part] * len(consumers), values)
    return Counter(dict(rows))


def _processes(
    connection: OwnConnection, lease: float
) -> tuple[Sequence[ServerProcess], Counter[str]]:
    """Return the processes that did not end, and how many that live run a consumer."""
    rows = connection.read(
        f"SELECT host, pid, consumers, {connection.dialect.now} - heartbeat "
        "FROM gomq_process WHERE ended IS NULL ORDER BY id"
    )
    processes, workers = [], Counter[str]()
    for host, pid, consumers, age in rows:
        is_late = age > lease
        processes.append(
            ServerProcess(host=host, pid=pid, beat_age=max(0.0, age), is_late=is_late)
        )
        if not is_late:
            workers.update(_names_in(consumers))
    return processes, workers


def _names_in(consumers: str) -> Sequence[str]:
    """Return none where nobody can read what the row has."""
    try:
        return msgspec.json.decode(consumers, type=list[str])
    except msgspec.DecodeError:
        return ()


def _united(
    connection: OwnConnection,
    parts: Sequence[str],
    values: Sequence[Iterable[Any]] = (),
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of many statements, in few trips."""
    for start in range(0, len(parts), MAX_PARTS):
        end = start + MAX_PARTS
        given = [value for each in values[start:end] for value in each]
        yield from connection.read(" UNION ALL ".join(parts[start:end]), given)
