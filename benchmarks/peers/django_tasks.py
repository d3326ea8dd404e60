"""django-tasks on its ImmediateBackend: the task runs in the caller."""

from __future__ import annotations

from collections.abc import Callable

import django
from django_tasks import task

from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.project import configure
from benchmarks.sink import Sink

_sink = Sink()
_BACKEND = "django_tasks.backends.immediate.ImmediateBackend"


def handle(order_id: int, status: str, total: object) -> None:
    """Take the event; a task must stand at the level of a module."""
    _sink.take(total)


def immediate(**load: int) -> Callable[[], Metrics]:
    """Enqueue the task once for each consumer, as it knows no broadcast."""
    asked = Load(**load)
    configure(["django_tasks"], TASKS={"default": {"BACKEND": _BACKEND}})
    django.setup()
    made = task()(handle)

    def emit(data: dict[str, object]) -> None:
        for _ in range(asked.consumers):
            made.enqueue(**data)

    return lambda: drive(emit, _sink, asked)
