"""A server that hands messages out on leases, as a table or Redis Streams would."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from threading import Condition
from typing import Any

import msgspec

from django_gomq.bus.backend import ConsumerState, Settled, Settlement
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.delivery import DeadLettered, Delivery, RetryAfter
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ServerSample, ServerStats

LOOK_SECONDS = 0.05
"""A client that waits looks again so often, for delays and leases that have ended."""


class Row(msgspec.Struct, eq=False):
    """A message for one consumer; without a message it is garbage."""

    number: int
    consumer: str
    message: Message[Any] | None
    due: float
    attempt: int = 1
    first_failed: float | None = None
    owner: str | None = None
    leased_until: float = 0.0
    deliveries: int = 0
    """How often it was handed out; also fences an earlier owner out."""


class LeaseServer:
    """Rows, each with a lease; thread-safe.

    Leases end by the server's own clock, which only ``pass_time`` moves, so that none
    is lost to a busy machine.
    """

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.is_away = False
        self.loses_answers = False
        self.desired: dict[str, ConsumerState] = {}
        self._changed = Condition()
        self._now = 0.0
        self._numbers = itertools.count(1)
        self._rows: dict[int, Row] = {}
        self._consumers: dict[str, Consumer] = {}
        self._dead: dict[str, DeadLetter] = {}

    def __enter__(self) -> None:
        """Begin a request: raises ConnectionError while the server is away."""
        self._changed.acquire()
        if self.is_away:
            self._changed.release()
            raise ConnectionRefusedError("the server is away")

    def __exit__(self, *_: object) -> None:
        self._changed.release()

    def pass_time(self, seconds: float) -> None:
        with self._changed:
            self._now += seconds
            self._changed.notify_all()

    def register(self, consumers: Iterable[Consumer]) -> list[str]:
        with self:
            self._consumers.update({each.name: each for each in consumers})
            return sorted(self._consumers)

    def put(self, messages: Iterable[Message[Any]]) -> list[bool]:
        """Store messages; return, for each, whether anybody consumes it."""
        with self:
            found = [self._put(message.type, message) for message in messages]
            self._changed.notify_all()
            return found

    def put_garbage(self, event_type: str) -> None:
        with self:
            self._put(event_type, None)
            self._changed.notify_all()

    def _put(self, event_type: str, message: Message[Any] | None) -> bool:
        consumers = [
            each for each in self._consumers.values() if each.subscribes_to(event_type)
        ]
        due = time.monotonic() + (message.delay if message is not None else 0.0)
        for consumer in consumers:
            number = next(self._numbers)
            self._rows[number] = Row(number, consumer.name, message, due)
        return bool(consumers)

    def wait(self, timeout: float) -> None:
        with self:
            self._changed.wait(min(timeout, LOOK_SECONDS))
        with self:
            return

    def claim(self, consumer: Consumer, owner: str, room: int) -> list[Row]:
        """Lease rows that are ready, copies of which are returned."""
        claimed = []
        with self:
            for row in itertools.islice(self._ready(consumer, owner), room):
                row.owner, row.leased_until = owner, self._now + self.lease
                row.deliveries += 1
                claimed.append(msgspec.structs.replace(row))
        return claimed

    def _ready(self, consumer: Consumer, owner: str) -> Iterator[Row]:
        now = time.monotonic()
        elsewhere: set[str | None] = set()
        mine = (row for row in self._rows.values() if row.consumer == consumer.name)
        for row in sorted(mine, key=_place):
            key = row.message.key if row.message is not None else None
            if key in elsewhere:
                continue
            if self._is_held(row):
                # Only its owner may have more of an ordered key.
                if consumer.ordered_by_key and key is not None and row.owner != owner:
                    elsewhere.add(key)
            elif row.due <= now:
                yield row

    def _is_held(self, row: Row) -> bool:
        return row.owner is not None and row.leased_until > self._now

    def _held(self, delivery: Delivery, owner: str) -> Row | None:
        number, deliveries = token_of(delivery)
        row = self._rows.get(number)
        is_his = row is not None and (row.owner, row.deliveries) == (owner, deliveries)
        return row if is_his else None

    def settle(self, settlements: Sequence[Settlement], owner: str) -> list[Settled]:
        with self:
            return [self._settle(settlement, owner) for settlement in settlements]

    def _settle(self, settlement: Settlement, owner: str) -> Settled:
        row = self._held(settlement.delivery, owner)
        if row is None:
            return Settled.LOST_LEASE
        match settlement.outcome:
            case RetryAfter(delay, error):
                row.owner, row.due = None, time.monotonic() + delay
                row.attempt += error is not None
                if error is not None and row.first_failed is None:
                    row.first_failed = time.time()
                return Settled.DONE
            case DeadLettered():
                letter = settlement.dead_letter
                assert letter is not None
                self._dead[letter.id] = letter
        del self._rows[row.number]
        return Settled.DONE

    def extend(self, deliveries: Sequence[Delivery], owner: str) -> list[Settled]:
        with self:
            rows = [self._held(delivery, owner) for delivery in deliveries]
            for row in rows:
                if row is not None:
                    row.leased_until = self._now + self.lease
        return [Settled.LOST_LEASE if row is None else Settled.DONE for row in rows]

    def release(
        self, deliveries: Sequence[Delivery], owner: str, *, counts: bool
    ) -> None:
        with self:
            for delivery in deliveries:
                row = self._held(delivery, owner)
                if row is not None:
                    row.owner = None
                    row.deliveries -= not counts
            self._changed.notify_all()

    def stats(self) -> ServerSample:
        now = time.monotonic()
        with self:
            free = [row for row in self._rows.values() if not self._is_held(row)]
            names = list(self._consumers)
        return ServerSample(
            consumers={
                name: ServerStats(
                    ready=sum(row.consumer == name and row.due <= now for row in free),
                    scheduled=sum(
                        row.consumer == name and row.due > now for row in free
                    ),
                )
                for name in names
            }
        )

    def dead_letters(self, after: str, limit: int) -> list[DeadLetter]:
        with self:
            return [each for each in self._dead.values() if each.id > after][:limit]

    def replay(self, ids: Sequence[str]) -> int:
        with self:
            letters = [self._dead.pop(each) for each in ids if each in self._dead]
            for letter in letters:
                number = next(self._numbers)
                due = time.monotonic()
                row = Row(number, letter.consumer, letter.message, due)
                self._rows[number] = row
            self._changed.notify_all()
        return len(letters)

    def discard(self, ids: Sequence[str]) -> int:
        with self:
            return sum(self._dead.pop(each, None) is not None for each in ids)


def token_of(delivery: Delivery) -> tuple[int, int]:
    """Return the number of the row, and which handing-out of it this is."""
    token: Any = delivery.token
    number, deliveries = token
    return number, deliveries


def _place(row: Row) -> tuple[int, int]:
    return -(row.message.priority if row.message is not None else 0), row.number
