"""Who publishes and who handles while exceptions come up, and their books."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from django_gomq.backends.memory.queues import EventQueue
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import PublishError
from django_gomq.bus.message import Message
from tests.bus.interrupting import interrupt_often
from tests.bus.waiting import wait_until

CAPACITY = 64


class Ledger:
    """A handler that knows what it was given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, message: Message[int]) -> None:
        self.seen.append(message.data)

    def has_seen_2(self) -> bool:
        return 2 in self.seen


class Publisher:
    """Publishes numbers, one after the other, and knows which were accepted."""

    def __init__(self, broker: Broker, **options: float) -> None:
        self.broker = broker
        self.number = 0
        self.accepted: list[int] = []
        self.refused = 0
        self.interrupted = 0
        self._delay = options.pop("delay", 0.0)
        self._timeout = options.pop("timeout", None)

    def publish_one(self) -> None:
        self.number += 1
        message = Message[int]("a.b", b"%d" % self.number, delay=self._delay)
        try:
            self.broker.publish(message, timeout=self._timeout)
        except PublishError:
            self.refused += 1
        else:
            self.accepted.append(self.number)

    def publish_for_ever(self) -> NoReturn:
        while True:
            self.publish_one()

    def publish_through(self, interrupts: threading.Event, rounds: int) -> None:
        hits = interrupt_often(self.publish_for_ever, interrupts, rounds)
        self.interrupted += hits

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Publish on another thread, where no signal handler raises."""
        done = threading.Event()

        def publish() -> None:
            while not done.is_set():
                self.publish_one()

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        yield
        done.set()
        thread.join()


def queue_of(broker: Broker) -> EventQueue:
    found: EventQueue = broker._current_runtime().backend._queues.by_type["a.b"]  # type: ignore[attr-defined]
    return found


def check_books(broker: Broker, publisher: Publisher, ledger: Ledger) -> None:
    """Everything that was accepted was handled once, and every permit came back."""
    queue = queue_of(broker)
    wait_until(lambda: not queue.held and broker.stats().is_quiet)
    stats = broker.stats()
    published = stats.queues["a.b"].published
    handled = sorted(ledger.seen)
    assert stats.consumers["c"].dropped == {}
    assert len(handled) == len(set(handled)), "a message was handled twice"
    assert set(publisher.accepted) <= set(handled)
    # The message at hand, when an exception came up, is whole or was never made.
    assert len(handled) <= len(publisher.accepted) + publisher.interrupted
    assert published == stats.queues["a.b"].dispatched == len(handled)
    assert queue.room == queue.capacity == CAPACITY
