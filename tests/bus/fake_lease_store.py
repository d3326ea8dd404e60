"""The runner of the fake lease backend: rows with leases, as in a table."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from django_gomq.bus.backend import DeadLetter, Settled
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import DeadLettered, Delivery, Outcome, RetryAfter
from django_gomq.bus.message import Message


class Clock:
    """The runner's clock; it goes on when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(slots=True)
class Row:
    """One message for one consumer."""

    id: int
    message: Message[Any]
    consumer: str
    available_at: float
    """By the runner's clock."""
    due: float
    """The same moment, in seconds since 1970."""
    attempt: int = 0
    owner: str | None = None
    lease_until: float = 0.0

    def is_free(self, now: float) -> bool:
        until = self.available_at if self.owner is None else self.lease_until
        return until <= now


class LeaseStore:
    """The runner. A claim counts the attempt; (owner, attempt) fences the rest."""

    def __init__(self, *, lease: float = 30.0, max_claims: int = 20) -> None:
        self.clock = Clock()
        self.lease = lease
        self.rows: dict[int, Row] = {}
        self.dead: list[DeadLetter] = []
        self.finished: list[tuple[str, str]] = []
        """Consumer and message id of each success."""
        self.is_away = False
        self._max_claims = max_claims
        self._consumers: dict[str, Consumer] = {}
        self._ids = itertools.count(1)
        self._lock = Lock()

    def _connect(self) -> Lock:
        if self.is_away:
            raise ConnectionError("the store is away")
        return self._lock

    def register(self, consumer: Consumer) -> None:
        with self._connect():
            self._consumers[consumer.name] = consumer

    def insert(self, message: Message[Any]) -> int:
        """Return for how many consumers it was stored."""
        with self._connect():
            found = [
                name
                for name, consumer in self._consumers.items()
                if consumer.subscribes_to(message.type)
            ]
            at = self.clock.now + message.delay
            due = message.made + message.delay
            for name in found:
                row_id = next(self._ids)
                self.rows[row_id] = Row(row_id, message, name, at, due)
            return len(found)

    def claim(self, consumer: str, owner: str, most: int) -> list[Delivery]:
        with self._connect():
            now = self.clock.now
            free = [
                row
                for row in self.rows.values()
                if row.consumer == consumer and row.is_free(now)
            ]
            free.sort(key=lambda row: (-row.message.priority, row.available_at, row.id))
            return [self._claim(row, owner) for row in free[:most] if self._may(row)]

    def _may(self, row: Row) -> bool:
        if row.attempt < self._max_claims:
            return True
        error = RuntimeError(f"taken {row.attempt} times and never settled")
        self._bury(row, error)
        return False

    def _claim(self, row: Row, owner: str) -> Delivery:
        row.owner, row.attempt = owner, row.attempt + 1
        row.lease_until = self.clock.now + self.lease
        token = row.id, row.attempt
        available = row.due - time.time() + time.monotonic()
        return Delivery(row.message, available, row.attempt, token)

    def settle(self, owner: str, delivery: Delivery, outcome: Outcome) -> Settled:
        with self._connect():
            row = self._held(owner, delivery)
            if row is None:
                return Settled.LOST_LEASE
            match outcome:
                case RetryAfter(delay, error):
                    row.available_at = self.clock.now + delay
                    row.due = time.time() + delay
                    self._give_back(row, is_counted=error is not None)
                case DeadLettered(error):
                    self._bury(row, error)
                case _:
                    del self.rows[row.id]
                    self.finished.append((row.consumer, row.message.id))
            return Settled.DONE

    def release(self, owner: str, deliveries: Iterable[Delivery]) -> None:
        with self._connect():
            for delivery in deliveries:
                row = self._held(owner, delivery)
                if row is not None:
                    self._give_back(row, is_counted=False)

    def extend(self, owner: str, deliveries: Iterable[Delivery]) -> list[Settled]:
        with self._connect():
            rows = [self._held(owner, one) for one in deliveries]
            for row in rows:
                if row is not None:
                    row.lease_until = self.clock.now + self.lease
            return [Settled.LOST_LEASE if row is None else Settled.DONE for row in rows]

    def _held(self, owner: str, delivery: Delivery) -> Row | None:
        token: Any = delivery.token
        row_id, attempt = token
        row = self.rows.get(row_id)
        is_held = row is not None and (row.owner, row.attempt) == (owner, attempt)
        return row if is_held else None

    def _give_back(self, row: Row, *, is_counted: bool) -> None:
        row.owner = None
        row.attempt -= not is_counted

    def _bury(self, row: Row, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        self.dead.append(
            DeadLetter(
                message=row.message,
                consumer=row.consumer,
                attempt=row.attempt,
                error=text,
                time=self.clock.now,
            )
        )
        del self.rows[row.id]
