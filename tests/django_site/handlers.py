"""Handlers for tests: one that remembers, one that is held; they assert nothing."""

from __future__ import annotations

from threading import Event
from typing import Any

from django_gomq import Message, consumer, get_broker
from django_gomq.site import get_worker
from tests.django_site.waiting import SECONDS, wait_until


class Undo(Exception):
    """Raised to leave an atomic block with a rollback."""


class Seen:
    """Remembers the messages it was given, in their order."""

    def __init__(self) -> None:
        self.messages: list[Message[Any]] = []

    def __call__(self, message: Message[Any]) -> None:
        self.messages.append(message)

    @property
    def data(self) -> list[Any]:
        return [message.data for message in self.messages]

    @property
    def types(self) -> list[str]:
        return [message.type for message in self.messages]

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.messages) >= count, f"{count} messages")


class Held(Seen):
    """Is inside its first message until ``release`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = Event()
        self.release = Event()

    def __call__(self, message: Message[Any]) -> None:
        self.entered.set()
        self.release.wait(SECONDS)
        super().__call__(message)


def listen(*types: Any, name: str = "seen", **options: Any) -> Seen:
    """Register a consumer that remembers."""
    seen = Seen()
    consumer(*types, name=name, **options)(seen)
    return seen


def hold(*types: Any, name: str = "held") -> Held:
    """Register a consumer with room for one message, which holds its type back."""
    held = Held()
    consumer(*types, name=name, capacity=1, overflow="backpressure")(held)
    return held


def fill(event: str, held: Held, capacity: int) -> None:
    """Publish until one message is in work and the type's queue is full."""
    broker = get_broker()
    broker.publish(Message(event))
    assert held.entered.wait(SECONDS)
    wait_until(lambda: not broker.stats().queues[event].depth)
    for _ in range(capacity):
        broker.publish(Message(event))


def wait_quiet(alias: str = "default") -> None:
    """Wait until nothing waits, is scheduled or is in work, and hooks know of all."""

    def is_quiet() -> bool:
        if not get_broker(alias).stats().is_quiet:
            return False
        # Hooks are told after the counts: by who is still at work then.
        worker = get_worker()
        at_work = worker.oldest_starts() if worker is not None else ()
        return all(subscription.broker != alias for subscription in at_work)

    wait_until(is_quiet, "quiet")
    wait_until(get_broker(alias).hooks.flush, "the hooks")
