"""Task queues on PostgreSQL, driven as this project is: one worker in the process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command

from benchmarks.servers import emits, handled
from benchmarks.servers.emits import BULK, measure
from benchmarks.servers.handled import Timed, data_at
from benchmarks.servers.running import dsn, new_site
from benchmarks.sink import DATA

Metrics = Mapping[str, float]
_sink = Timed()


@contextmanager
def _beside(work: Callable[[], Coroutine[Any, Any, Any]]) -> Iterator[None]:
    """Run an asyncio worker on a thread with a loop of its own, and cancel it."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(work())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


def _drive(
    work: Callable[[], Coroutine[Any, Any, Any]],
    emit: Callable[[int], object],
    fill: Callable[[], object],
    messages: int,
    paced: int,
) -> Metrics:
    _sink.clear()
    fill()
    with _beside(work):
        _sink.wait(messages)
        found = {"handled": _sink.rate()}
        return found | handled.pace(_sink, emit, paced)


# ------------------------------------------------------------------ pgqueuer


class _PgQueuer:
    """Its queries, on a loop that runs while one of them does."""

    def __init__(self) -> None:
        import asyncpg
        from pgqueuer import AsyncpgDriver, Queries

        self.address = dsn(new_site("postgresql", is_migrated=False))
        self._loop = asyncio.new_event_loop()
        connection = self.wait(asyncpg.connect(self.address))
        self._queries = Queries(AsyncpgDriver(connection))
        self.wait(self._queries.install())

    def wait(self, asked: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(asked)

    def one(self, data: Mapping[str, Any]) -> None:
        self.wait(self._queries.enqueue("handle", json.dumps(data).encode(), 0))

    def many(self, size: int) -> None:
        bodies = [json.dumps(DATA).encode() for _ in range(size)]
        self.wait(self._queries.enqueue(["handle"] * size, bodies, [0] * size))

    async def work(self) -> None:
        import asyncpg
        from pgqueuer import AsyncpgDriver, PgQueuer

        worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(self.address)))

        @worker.entrypoint("handle")
        async def handle(job: Any) -> None:
            _sink.take(json.loads(job.payload)["total"])

        await worker.run()


def pgqueuer_emits(count: int) -> Callable[[], Metrics]:
    """Enqueue by asyncpg: not on Django's connection, so in no transaction of it."""
    peer = _PgQueuer()

    def clear() -> None:
        emits.execute("TRUNCATE pgqueuer")

    return lambda: measure(
        lambda: peer.one(DATA), peer.many, count, joins_transactions=False, clear=clear
    )


def pgqueuer_handled(messages: int, paced: int) -> Callable[[], Metrics]:
    """Handle by its asyncio worker, with its defaults: batches of ten."""
    peer = _PgQueuer()

    def fill() -> None:
        for start in range(0, messages, BULK):
            peer.many(min(BULK, messages - start))

    return lambda: _drive(
        peer.work, lambda moment: peer.one(data_at(moment)), fill, messages, paced
    )


# ------------------------------------------------------------------ procrastinate


class _Procrastinate:
    def __init__(self) -> None:
        import procrastinate

        self.address = dsn(new_site("postgresql", is_migrated=False))
        connector = procrastinate.SyncPsycopgConnector(conninfo=self.address)
        app = procrastinate.App(connector=connector)
        app.open()
        app.schema_manager.apply_schema()
        self._task = app.configure_task("handle")

    def one(self, data: Mapping[str, Any]) -> None:
        self._task.defer(**data)

    def many(self, size: int) -> None:
        self._task.batch_defer(*[dict(DATA) for _ in range(size)])

    async def work(self) -> None:
        import procrastinate

        connector = procrastinate.PsycopgConnector(conninfo=self.address)
        app = procrastinate.App(connector=connector)

        @app.task(name="handle")
        async def handle(order_id: int, status: str, total: object) -> None:
            _sink.take(total)

        async with app.open_async():
            await app.run_worker_async(install_signal_handlers=False)


def procrastinate_emits(count: int) -> Callable[[], Metrics]:
    """Defer by its own pool of psycopg: not on Django's connection."""
    peer = _Procrastinate()

    def clear() -> None:
        emits.execute("TRUNCATE procrastinate_jobs CASCADE")

    return lambda: measure(
        lambda: peer.one(DATA), peer.many, count, joins_transactions=False, clear=clear
    )


def procrastinate_handled(messages: int, paced: int) -> Callable[[], Metrics]:
    """Handle by its worker, with its defaults: one job at a time."""
    peer = _Procrastinate()
    return lambda: _drive(
        peer.work,
        lambda moment: peer.one(data_at(moment)),
        lambda: peer.many(messages),
        messages,
        paced,
    )


# ------------------------------------------------------------------ django-tasks-db


def handle(order_id: int, status: str, total: object) -> None:
    """Take the event; a task must stand at the level of a module."""
    _sink.take(total)


def _django_tasks() -> Callable[[], object]:
    new_site(
        "postgresql",
        "django_tasks",
        "django_tasks_db",
        TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
    )
    from django_tasks import task

    made = globals()["handle"] = task()(handle)
    return lambda: made.enqueue(**DATA)


def _clear_tasks() -> None:
    from django_tasks_db.models import DBTaskResult

    emits.execute(f"TRUNCATE {DBTaskResult._meta.db_table}")


def django_tasks_emits(count: int) -> Callable[[], Metrics]:
    """Enqueue on Django's connection; it has no call for many."""
    enqueue = _django_tasks()
    return lambda: measure(enqueue, None, count, clear=_clear_tasks)


def django_tasks_handled(messages: int) -> Callable[[], Metrics]:
    """Handle by its worker until nothing is left; it polls once a second else."""
    enqueue = _django_tasks()

    def run() -> Metrics:
        _sink.clear()
        for _ in range(messages):
            enqueue()
        call_command("db_worker", batch=True, startup_delay=False, verbosity=0)
        _sink.wait(messages)
        found = {"handled": _sink.rate()}
        _clear_tasks()
        return found

    return run
