"""Task queues on Redis: what each enqueues with, and the worker that it ships.

``python -m benchmarks.servers.redis_tasks NAME URL FILE`` runs such a worker. Its task
appends to the file when it was sent and when it ran: two numbers of 8 bytes.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from benchmarks.sink import now

RECORD: Final = struct.Struct("<qq")
FILE: Final = "GOMQ_BENCH_FILE"  # the worker's environment
PARENT_DIED: Final = 1  # prctl's PR_SET_PDEATHSIG

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them, on one server."""

    enqueue: Callable[[Data], object]
    work: Callable[[], object]
    """Never returns; for the main thread of a process of its own."""


def record(sent: object) -> None:
    """Write down that a task ran."""
    os.write(_file(), RECORD.pack(sent, now()))


def _file() -> int:
    global _opened  # noqa: PLW0603 - a task has no other place for it
    if _opened is None:
        _opened = os.open(os.environ[FILE], os.O_APPEND | os.O_WRONLY)
    return _opened


_opened: int | None = None


def handle(order_id: int, status: str, total: object) -> None:
    """Do what every task here does."""
    record(total)


async def handle_async(order_id: int, status: str, total: int) -> None:
    """Do the same where a task is a coroutine."""
    record(total)


def _dramatiq(url: str) -> Peer:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
    actor = dramatiq.actor(handle, broker=broker)

    def work() -> None:
        dramatiq.Worker(broker, worker_threads=8).start()
        threading.Event().wait()

    return Peer(lambda data: actor.send(**data), work)


def _huey(url: str) -> Peer:
    from huey import RedisHuey

    huey = RedisHuey("bench", url=url, results=False)
    task = huey.task()(handle)
    consumer = huey.create_consumer
    return Peer(
        lambda data: task(**data), lambda: consumer(workers=4, periodic=False).run()
    )


def _celery(url: str) -> Peer:
    from celery import Celery

    app = Celery("bench", broker=url)
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
    task = app.task(name="handle")(handle)
    silent = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    command = ("worker", "-P", "solo", "-l", "ERROR", *silent)
    return Peer(lambda data: task.delay(**data), lambda: app.worker_main(command))


def _rq(url: str) -> Peer:
    import redis
    from rq import Queue, SimpleWorker

    client = redis.Redis.from_url(url)
    queue, task = Queue(connection=client), f"{__name__}.handle"
    return Peer(
        lambda data: queue.enqueue(task, result_ttl=0, kwargs=dict(data)),
        lambda: SimpleWorker([queue], connection=client).work(logging_level="ERROR"),
    )


class _Loop:
    """Runs coroutines one after the other, in one context: streaq looks into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._context = contextvars.copy_context()

    def __call__(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = self._loop.create_task(work, context=self._context)
        return self._loop.run_until_complete(task)


def _taskiq(url: str) -> Peer:
    from taskiq.api import run_receiver_task
    from taskiq_redis import RedisStreamBroker

    broker, run = RedisStreamBroker(url), _Loop()
    task = broker.task(task_name="handle")(handle_async)
    is_open = list[bool]()

    def enqueue(data: Data) -> None:
        if not is_open:
            run(broker.startup())
            is_open.append(True)
        run(task.kiq(**data))

    return Peer(enqueue, lambda: run(run_receiver_task(broker, run_startup=True)))


def _streaq(url: str) -> Peer:
    from streaq import Worker

    worker, run = Worker(redis_url=url), _Loop()
    task = worker.task(handle_async)
    is_open = list[bool]()

    async def send(data: Data) -> None:
        await task.enqueue(**data)

    def enqueue(data: Data) -> None:
        if not is_open:
            run(worker.__aenter__())
            is_open.append(True)
        run(send(data))

    return Peer(enqueue, worker.run_sync)


PEERS: Final[Mapping[str, Callable[[str], Peer]]] = {
    "taskiq": _taskiq,
    "Huey": _huey,
    "Dramatiq": _dramatiq,
    "Celery": _celery,
    "streaq": _streaq,
    "RQ": _rq,
}


def main(name: str, url: str, file: str) -> None:
    """Run a worker until the process that wants it ends."""
    ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGKILL)
    os.environ[FILE] = file
    PEERS[name](url).work()


if __name__ == "__main__":
    # Where its tasks are at home for those who enqueue, not in __main__.
    import_module(__spec__.name).main(*sys.argv[1:])
