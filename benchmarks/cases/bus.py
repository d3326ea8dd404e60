"""A broker with consumers of one event type, whose books must balance after a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.project import set_up
from benchmarks.sink import PATIENCE, TYPE
from django_gomq import Event, Message, get_broker

Handler = Callable[[Message[Any]], object]


class OrderPaid(Event, type=TYPE):
    """The event of all cases, beside ``sink.DATA``."""

    order_id: int
    status: str
    total: str


def ignore(message: Message[Any]) -> None:
    """Handle a message by doing nothing."""


def with_room(count: int) -> dict[str, Any]:
    """Return settings whose queues hold so many messages."""
    return {"BROKERS": {"default": {"OPTIONS": {"capacity": count}}}}


class Bus:
    """The default broker of a project made for this process alone."""

    def __init__(
        self,
        consumers: int = 1,
        *,
        handler: Handler = ignore,
        types: Sequence[Any] = (TYPE,),
        gomq: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        set_up(gomq)
        self.broker = get_broker()
        self._sent = 0
        self._names = [f"bench.consumer_{number}" for number in range(consumers)]
        for name in self._names:
            self.broker.consume(types, handler, name=name, **options)
        self.broker.start()

    def settle(self, sent: int) -> None:
        """Wait until nothing is under way; raise RuntimeError if anything is missing.

        ``sent`` is what was published since the last call.
        """
        self._sent += sent
        deadline = time.monotonic() + PATIENCE
        while not self.broker.stats().is_quiet:
            if time.monotonic() > deadline:
                raise TimeoutError("messages still wait")
            time.sleep(0.001)
        self._check_books()

    def _check_books(self) -> None:
        stats = self.broker.stats()
        published = sum(one.published for one in stats.queues.values())
        refused = [one.refused for one in stats.queues.values() if one.refused]
        if published != self._sent or any(sum(one.values()) for one in refused):
            raise RuntimeError(f"{published} of {self._sent} published, {refused=}")
        for name in self._names:
            one = stats.consumers[name]
            lost = sum(one.dropped.values())
            if one.succeeded != self._sent or lost or one.unaccounted:
                raise RuntimeError(f"{name} handled {one.succeeded} of {self._sent}")
