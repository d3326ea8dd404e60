"""Starts and stops consumers together, as the first level above a broker."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

from .broker import Broker
from .consumer import Consumer
from .errors import ConfigurationError
from .event import EventMeta
from .stats import Remainder


@runtime_checkable
class Consuming(Protocol):
    """An object that a manager can run: it says what it wants, and handles it."""

    @property
    def name(self) -> str:
        """Its stable name."""

    @property
    def types(self) -> Sequence[str | EventMeta]:
        """The event types, patterns and Event classes that it subscribes to."""

    def handle(self, message: Any) -> object:
        """Handle one message."""


class ConsumerManager:
    """Registers consumers and runs them all, or none.

    A consumer that has a ``start()`` is started before it gets messages, one that has
    a ``stop()`` is stopped after its last one. Not thread-safe.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._consumers: dict[str, Consuming | Consumer] = {}

    def register(self, consumer: Consuming | Consumer) -> None:
        """Add a consumer; ConfigurationError if it is none or its name is taken."""
        if not isinstance(consumer, Consuming | Consumer):
            raise ConfigurationError(
                f"{consumer!r} is no consumer: give it name, types, handle(message)."
            )
        if consumer.name in self._consumers:
            raise ConfigurationError(
                f"Two consumers are named {consumer.name!r}.", consumer=consumer.name
            )
        self._consumers[consumer.name] = consumer

    def start_all(self) -> None:
        """Start every consumer, then the broker.

        The first error is raised, after the consumers that had started were stopped.
        """
        started: list[Consuming | Consumer] = []
        try:
            for consumer in self._consumers.values():
                _call(consumer, "start")
                started.append(consumer)
            for consumer in self._consumers.values():
                self._subscribe(consumer)
            self._broker.start()
        except BaseException:
            # The first error is the one to know; what a stop raises is its context.
            with contextlib.suppress(Exception):
                _stop_each(started)
            raise

    def _subscribe(self, consumer: Consuming | Consumer) -> None:
        if isinstance(consumer, Consumer):
            self._broker.add(consumer)
        else:
            self._broker.consume(consumer.types, consumer, name=consumer.name)

    def stop(self, timeout: float | timedelta | None = None) -> Remainder:
        """Drain and close the broker, then stop every consumer.

        Blocks up to ``timeout`` seconds and about one more.
        """
        remainder = self._broker.close(timeout)
        _stop_each(list(self._consumers.values()))
        return remainder


def _call(consumer: object, method: str) -> None:
    call = getattr(consumer, method, None)
    if callable(call):
        call()


def _stop_each(consumers: Sequence[object]) -> None:
    with contextlib.ExitStack() as stack:
        for consumer in consumers:
            stack.callback(_call, consumer, "stop")
