"""Celery on kombu's memory transport, with a worker of its solo pool in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import start_worker

from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.sink import Sink

SETTLING = 0.3  # seconds for its worker to connect


def memory(*, polling: float | None = None, **load: int) -> Callable[[], Metrics]:
    """One task for each consumer; ``polling`` replaces its default of a second."""
    asked = Load(**load)
    sink = Sink()
    app = _make_app(polling)
    tasks = [
        app.task(name=f"handle_{number}", shared=False)(_make_task(sink))
        for number in range(asked.consumers)
    ]
    app.finalize()

    def emit(data: dict[str, object]) -> None:
        for task in tasks:
            task.delay(**data)

    _start_worker(app)
    return lambda: drive(emit, sink, asked)


def _start_worker(app: Any) -> None:
    """Start a worker that ends with the process: an orderly end takes four seconds."""
    worker = start_worker(app, pool="solo", concurrency=1, perform_ping_check=False)
    worker.__enter__()
    _workers.append(worker)  # else it would be collected, and thereby ended
    time.sleep(SETTLING)


_workers: list[Any] = []


def _make_app(polling: float | None) -> Any:
    app = Celery("bench", broker="memory://", set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
    )
    if polling is not None:
        app.conf.broker_transport_options = {"polling_interval": polling}
    return app


def _make_task(sink: Sink) -> Callable[..., None]:
    def handle(order_id: int, status: str, total: object) -> None:
        sink.take(total)

    return handle
