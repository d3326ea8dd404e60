"""Brokers to observe: made by hand, waited for without a sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message

WAIT_SECONDS = 60.0  # the longest wait, on a machine that does much else


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until the condition holds, or fail."""
    deadline = time.monotonic() + WAIT_SECONDS
    never = Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s"
        never.wait(0.002)


def wait_quiet(*brokers: Broker) -> None:
    """Wait until nothing waits, is scheduled or is in work."""
    wait_until(lambda: all(broker.stats().is_quiet for broker in brokers))


def wait_handled(broker: Broker, *consumers: str) -> None:
    """Wait until all is dispatched, and these consumers have nothing left to do."""

    def are_done() -> bool:
        stats = broker.stats()
        return not any(
            queue.depth or queue.delayed for queue in stats.queues.values()
        ) and not any(
            stats.consumers[name].depth
            or stats.consumers[name].scheduled
            or stats.consumers[name].in_flight
            for name in consumers
        )

    wait_until(are_done)


def publish(broker: Broker, event: str, count: int = 1, **fields: Any) -> None:
    """Publish messages of one type, and wait for room if need be."""
    for _ in range(count):
        broker.publish(Message(type=event, **fields), timeout=WAIT_SECONDS)


def do_nothing(message: object) -> None:
    """Handle a message, or a batch of them."""
