"""How fast stored events are handled in one process, and how soon after their emit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import psycopg
from django.db import connection

from benchmarks.servers.emits import BULK
from benchmarks.servers.running import dsn, new_site
from benchmarks.sink import BODY, DATA, NS, TYPE, Sink, now, spread
from django_gomq import Message
from django_gomq.backends.database import DatabaseBackend
from django_gomq.bus.broker import Broker

PAUSE = 0.005  # seconds between two emits where latency is measured
Metrics = Mapping[str, float]


class Timed(Sink):
    """A sink that knows when the first and the last event came."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[int] = []

    def take(self, total: object) -> None:
        """Note one event, and when it came."""
        super().take(total)
        self.moments.append(now())

    def clear(self) -> None:
        """Forget what came."""
        self.delays.clear()
        self.moments.clear()

    def rate(self) -> float:
        """Return events a second, from the first to the last: starting is no part."""
        return (len(self.moments) - 1) / ((self.moments[-1] - self.moments[0]) * NS)


def pace(
    sink: Timed, emit: Callable[[int], object], count: int, consumers: int = 1
) -> Metrics:
    """Emit now and then; return how long each took to its handlers."""
    sink.clear()
    for number in range(count):
        emit(now())
        sink.wait((number + 1) * consumers)
        time.sleep(PAUSE)
    median, tail = spread(sink.delays)
    return {"p50": median, "p99": tail}


def ours(
    vendor: str,
    consumers: int,
    messages: int,
    *,
    paced: int = 0,
    history: int = 0,
    holds_snapshot: bool = False,
    outcomes: bool = True,
) -> Callable[[], Metrics]:
    """Store messages, then start a broker of so many consumers; nothing may be lost."""
    entry = new_site(vendor, "django_gomq")
    if history:
        _make_history(history)

    def run() -> Metrics:
        with ExitStack() as stack:
            if holds_snapshot:
                stack.enter_context(_snapshot(entry))
            return _run(consumers, messages, paced, outcomes=outcomes)

    return run


def _run(consumers: int, messages: int, paced: int, *, outcomes: bool) -> Metrics:
    sink, is_filled = Timed(), threading.Event()
    broker = Broker(
        partial(DatabaseBackend, outcomes=outcomes), may_start=is_filled.is_set
    )
    for number in range(consumers):
        name = f"bench.consumer_{number}"
        broker.consume(
            [TYPE], lambda message: sink.take(message.data["total"]), name=name
        )
    broker.setup()
    for start in range(0, messages, BULK):
        size = min(BULK, messages - start)
        broker.publish_many([Message(TYPE, BODY) for _ in range(size)])
    is_filled.set()
    broker.start()
    sink.wait(messages * consumers)
    found = {"handled": sink.rate() / consumers}
    if paced:
        found |= pace(
            sink, lambda moment: broker.publish(stamped(moment)), paced, consumers
        )
    broker.close(timeout=10)
    _check(broker, consumers, messages + paced)
    return found


def stamped(moment: int) -> Message[Any]:
    """Return an event with a time stamp."""
    return Message(TYPE, BODY.replace(b'"99.90"', b"%d" % moment))


def _check(broker: Broker, consumers: int, sent: int) -> None:
    """Raise RuntimeError unless each consumer handled all, and the tables are empty."""
    counts = [one.succeeded for one in broker.stats().consumers.values()]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM gomq_outbox), "
            "(SELECT count(*) FROM gomq_delivery)"
        )
        left = tuple(cursor.fetchone())
    if counts != [sent] * consumers or left != (0, 0):
        raise RuntimeError(f"{counts} of {sent} were handled, {left} rows are left")


def _make_history(rows: int) -> None:
    """Have so many events of the last days, on PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO gomq_event (id, type, made, envelope) "
            "SELECT -number, %s, extract(epoch FROM now()) - number * 0.3, %s "
            "FROM generate_series(%s, 1, -1) number",  # oldest first, as they came
            (TYPE, BODY, rows),
        )
        cursor.execute("ANALYZE gomq_event")


def _snapshot(entry: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """Return a connection that looks at what there is, and stays in its transaction."""
    reader = psycopg.connect(dsn(entry))
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT count(*) FROM gomq_outbox")
    return reader


def data_at(moment: int) -> dict[str, Any]:
    """Return what peers are sent: ``sink.DATA`` with a time stamp."""
    return {**DATA, "total": moment}
