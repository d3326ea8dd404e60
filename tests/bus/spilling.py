"""A place where consumers spill to, in the tests' own process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Event, Lock

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.spilling import Spilled, SpillStore
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ConsumerStats, Remainder
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.worker import Worker
from tests.bus.waiting import LONG


class SharedTable:
    """What all stores of one site share: rows of (owner, consumer, spilled)."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.rows: list[tuple[object, str, Spilled]] = []
        self.is_up = True
        self.problem: BaseException | None = None
        self.gate = Event()
        """A call of a store waits for it."""
        self.waiting = {"check", "write", "take", "adopt", "beat", "leave"}
        """Which calls do."""
        self.gate.set()
        self.calls: list[str] = []
        self.refused: set[bytes] = set()
        """Bodies that it cannot keep."""


class Store:
    """Keeps rows in a table, for one process."""

    def __init__(self, table: SharedTable) -> None:
        self.table = table

    def _ask(self, name: str) -> None:
        self.table.calls.append(name)
        if name in self.table.waiting:
            self.table.gate.wait()
        if not self.table.is_up:
            raise ConnectionError(name)

    def check(self) -> None:
        self._ask("check")
        if self.table.problem is not None:
            raise self.table.problem

    def write(self, consumer: str, spilled: Sequence[Spilled]) -> Sequence[Spilled]:
        self._ask("write")
        refused = [
            one for one in spilled if one.delivery.message.body in self.table.refused
        ]
        with self.table.lock:
            for one in spilled:
                if one not in refused:
                    self.table.rows.append((self, consumer, one))
        return refused

    def take(self, consumer: str, most: int) -> Sequence[Delivery]:
        self._ask("take")
        with self.table.lock:
            ours = [row for row in self.table.rows if row[:2] == (self, consumer)]
            ours.sort(key=lambda row: (-row[2].delivery.message.priority, row[2].place))
            for row in ours[:most]:
                self.table.rows.remove(row)
        return [_read(spilled) for _, _, spilled in ours[:most]]

    def adopt(self, consumer: str, most: int | None) -> Mapping[str, int]:
        self._ask("adopt")
        with self.table.lock:
            found = [row for row in self.table.rows if row[:2] == (None, consumer)]
            found = sorted(found, key=lambda row: row[2].place)[:most]
            for row in found:
                self.table.rows.remove(row)
                self.table.rows.append((self, *row[1:]))
        return Counter(spilled.delivery.message.type for _, _, spilled in found)

    def beat(self) -> None:
        self._ask("beat")

    def leave(self) -> None:
        self._ask("leave")
        lose(self.table, self)


def lose(table: SharedTable, store: object) -> None:
    """Make nobody's what one store has, as others do with that of the dead."""
    with table.lock:
        table.rows[:] = [
            (None if row[0] is store else row[0], *row[1:]) for row in table.rows
        ]


def _read(spilled: Spilled) -> Delivery:
    delivery = spilled.delivery
    return Delivery(
        delivery.message,
        delivery.available,
        delivery.attempt,
        token=spilled.place,
        postponed=delivery.postponed,
        first_failed=delivery.first_failed,
    )


class Spilling(Environment):
    """A program whose consumers spill into a table."""

    def __init__(self, table: SharedTable) -> None:
        self.table = table
        self.stores: list[Store] = []

    def make_spill_store(self, broker: str) -> SpillStore:
        self.stores.append(Store(self.table))
        return self.stores[-1]


class Process:
    """A process of a site whose consumers spill into a table."""

    def __init__(
        self, table: SharedTable, *, capacity: int = 1000, hooks: Sequence[Hook] = ()
    ) -> None:
        self.environment = Spilling(table)
        self._worker = Worker(8, environment=self.environment, hooks=hooks)
        self.broker = Broker(
            lambda: MemoryBackend(capacity=capacity),
            get_worker=lambda: self._worker,
            hooks=hooks,
        )

    def send(self, *numbers: int, key: str | None = None, priority: int = 5) -> None:
        for number in numbers:
            body = b"%d" % number
            self.broker.publish(Message("a.b", body, key=key, priority=priority))

    def stats(self) -> ConsumerStats:
        return self.broker.stats().consumers["c"]

    def close(self, timeout: float = 0) -> Remainder:
        remainder = self.broker.close(timeout)
        self._worker.stop(timeout=LONG)
        return remainder
