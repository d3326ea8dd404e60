"""A backend with partitions and offsets: in order by key, and little else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    Fetched,
    Settled,
    Settlement,
    Want,
)
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import (
    BackendUnavailableError,
    DecodeError,
    PublishError,
    PublishUnknownError,
)
from django_gomq.bus.message import Message
from django_gomq.testing.conformance import Harness
from tests.backends.fakes.partition_log import Ownership, PartitionLog, Place

SESSION = 0.3
REVOKE_SECONDS = 0.02
"""How long a look for handlers takes that must finish before a partition moves."""


class Assignment:
    """One partition in the hands of one consumer here."""

    def __init__(self, place: Place, owner: Ownership, offset: int) -> None:
        self.place = place
        self.owner = owner
        self.position = offset
        """The next offset to fetch."""
        self.lowest = offset
        """The first offset that is not finished."""
        self.is_lost = self.is_leaving = False
        self._finished: set[int] = set()

    def holds(self, delivery: Delivery) -> bool:
        return _token_of(delivery)[0] is self

    def finish(self, offset: int) -> None:
        self._finished.add(offset)
        while self.lowest in self._finished:
            self._finished.remove(self.lowest)
            self.lowest += 1


class PartitionBackend(Backend):
    """Fetches what it is assigned, and commits up to the first unfinished offset."""

    name: ClassVar[str] = "partition"
    capabilities = Capabilities(
        durable=True, ordered_by_key=True, replay=True, lease=SESSION
    )

    def __init__(self, log: PartitionLog) -> None:
        self._log = log
        self._lock = Lock()
        self._assigned: dict[Place, Assignment] = {}
        self._consumers: dict[str, Consumer] = {}

    def open(self, context: BackendContext) -> None:
        self._context = context
        self._member = context.owner

    def close(self, timeout: float) -> None:
        self._log.leave(self._member)

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        try:
            self._log.append(messages)
        except ConnectionError as error:
            away = BackendUnavailableError(str(error), broker=self._context.broker)
            return [away] * len(messages)
        if self._log.loses_answers:
            return [PublishUnknownError("no answer")] * len(messages)
        return [None] * len(messages)

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        self._consumers.update({want.consumer.name: want.consumer for want in wants})
        for name in self._consumers:
            self._follow(name)
        return [
            Fetched(want.consumer.name, self._fetch(want.consumer, want.room))
            for want in wants
        ]

    def wait(self, timeout: float) -> None:
        self._log.wait(timeout)

    # ------------------------------------------------------------ partitions

    def _fetch(self, consumer: Consumer, room: int) -> list[Delivery]:
        found: list[Delivery] = []
        for place, assignment in self._assigned.items():
            if place[0] == consumer.name and not assignment.is_leaving:
                found += self._read(consumer, assignment, room - len(found))
        return found

    def _follow(self, consumer: str) -> None:
        now = self._log.poll(consumer, self._member)
        for place, assignment in list(self._assigned.items()):
            generation, may_keep = now.get(place[1], (0, False))
            if place[0] != consumer:
                continue
            if generation != assignment.owner.generation:
                self._lose(assignment)
            elif not may_keep:
                self._hand_over(assignment)
        for number, (generation, may_keep) in now.items():
            place = consumer, number
            if may_keep and place not in self._assigned:
                owner = Ownership(self._member, generation)
                offset = self._log.committed(place)
                self._assigned[place] = Assignment(place, owner, offset)

    def _lose(self, assignment: Assignment) -> None:
        with self._lock:
            assignment.is_lost = True
        del self._assigned[assignment.place]
        self._context.inbox.withdraw(assignment.place[0], assignment.holds, 0.0)

    def _hand_over(self, assignment: Assignment) -> None:
        """Let handlers finish, tell how far we came, and let go."""
        inbox, consumer = self._context.inbox, assignment.place[0]
        assignment.is_leaving = True
        if inbox.withdraw(consumer, assignment.holds, REVOKE_SECONDS):
            return  # we look again at the next call
        with self._lock:
            assignment.is_lost = True
        del self._assigned[assignment.place]
        self._log.let_go(assignment.place, assignment.owner)

    def _read(
        self, consumer: Consumer, assignment: Assignment, room: int
    ) -> list[Delivery]:
        found: list[Delivery] = []
        number, first = assignment.place[1], assignment.position
        for event_type, message in self._log.read(number, first, max(0, room)):
            token = assignment, assignment.position
            assignment.position += 1
            if not consumer.subscribes_to(event_type):
                with self._lock:
                    assignment.finish(token[1])
            elif message is None:
                error, inbox = DecodeError("not JSON"), self._context.inbox
                inbox.quarantine(consumer.name, b"\xff", error, token)
            else:
                found.append(Delivery(message, time.monotonic(), 1, token))
        return found

    # ------------------------------------------------------------ offsets

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Commit for the partitions of these; their retries wait in the process."""
        with self._lock:
            touched: dict[Assignment, None] = {}
            for settlement in settlements:
                assignment, offset = _token_of(settlement.delivery)
                assignment.finish(offset)
                touched[assignment] = None
            kept = {each for each in touched if self._commit(each)}
        return [
            Settled.DONE
            if _token_of(settlement.delivery)[0] in kept
            else Settled.LOST_LEASE
            for settlement in settlements
        ]

    def _commit(self, assignment: Assignment) -> bool:
        return not assignment.is_lost and self._log.commit(
            assignment.place, assignment.lowest, assignment.owner
        )

    def extend(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        self._log.beat(self._member)
        return [
            Settled.DONE if self._is_mine(delivery) else Settled.LOST_LEASE
            for delivery in deliveries
        ]

    def _is_mine(self, delivery: Delivery) -> bool:
        assignment, _ = _token_of(delivery)
        return not assignment.is_lost and self._log.is_owner(
            assignment.place, assignment.owner
        )

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Fetch them again: nothing of a partition may be passed over."""
        for delivery in deliveries:
            assignment, offset = _token_of(delivery)
            assignment.position = min(assignment.position, offset)


def _token_of(delivery: Delivery) -> tuple[Assignment, int]:
    token: Any = delivery.token
    assignment, offset = token
    return assignment, offset


class PartitionHarness(Harness):
    def __init__(self) -> None:
        self.log = PartitionLog(SESSION)

    def make_backend(self) -> Backend:
        return PartitionBackend(self.log)

    def pass_time(self, seconds: float) -> None:
        self.log.pass_time(seconds)

    def stop_server(self) -> None:
        self.log.is_away = True

    def start_server(self) -> None:
        self.log.is_away = False

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        self.log.loses_answers = True
        yield
        self.log.loses_answers = False

    def put_garbage(self, event_type: str) -> None:
        self.log.put_garbage(event_type)
