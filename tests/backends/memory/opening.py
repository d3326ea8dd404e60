"""A memory backend by itself, with no broker around it."""

from __future__ import annotations

from typing import Any

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import BackendContext
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.process.timers import Timers
from django_gomq.bus.readers import PullReader


def ignore(_: object) -> None: ...


def open_backend(**options: Any) -> MemoryBackend:
    """Return an open backend whose dispatcher does not run."""
    backend, hooks = MemoryBackend(**options), Hooks()
    backend.open(
        BackendContext(
            broker="default",
            source="tests",
            owner="1",
            inbox=PullReader(backend, hooks),
            timers=Timers(ignore),
            hooks=hooks,
        )
    )
    return backend


def subscribe(
    backend: MemoryBackend, *types: str, name: str = "c", **options: Any
) -> Subscription:
    consumer = make_consumer(types, ignore, name=name, options=options)
    subscription = Subscription("default", consumer, hooks=Hooks())
    backend.make_reader().subscribe(subscription)
    return subscription
