"""A backend with ordered partitions and offsets, on a log that brokers share."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from threading import Lock, Thread
from typing import Any, ClassVar

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    DeadLetter,
    Settled,
)
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import DeadLettered, Delivery, Outcome, RetryAfter
from django_gomq.bus.errors import BrokerClosedError, MessageError
from django_gomq.bus.fork import claim_thread
from django_gomq.bus.message import Message
from django_gomq.bus.stats import QueueStats
from django_gomq.bus.timers import DelayQueue
from tests.bus.fake_partition_log import Log

POLL_SECONDS = 0.002


class Assignment:
    """One partition in the hands of one subscription, until it is revoked."""

    def __init__(
        self,
        partition: int,
        generation: int,
        offset: int,
        retries: DelayQueue[Delivery],
    ) -> None:
        self.partition = partition
        self.generation = generation
        self.position = offset
        """The next offset to fetch."""
        self.retries = retries
        self.is_revoked = False
        self.lowest = offset
        """The first offset that is not finished."""
        self.committed = offset
        self._finished: set[int] = set()

    def finish(self, offset: int) -> None:
        self._finished.add(offset)
        while self.lowest in self._finished:
            self._finished.remove(self.lowest)
            self.lowest += 1


class PartitionBackend(Backend):
    """One member: one thread follows the assignments, commits and fetches."""

    name: ClassVar[str] = "partition"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True, ordered_by_key=True, max_delay=0.0, replay=True
    )

    def __init__(self, log: Log) -> None:
        self.log = log
        self.member = uuid.uuid4().hex
        self._assigned: dict[Subscription, dict[int, Assignment]] = {}
        self._lock = Lock()  # of all assignments
        self._published: Counter[str] = Counter()
        self._is_closing = False
        self._stop = threading.Event()
        self._thread: Thread | None = None

    def open(self, surroundings: BackendContext) -> None:
        self._around = surroundings

    def subscribe(self, subscription: Subscription) -> None:
        self._assigned = {**self._assigned, subscription: {}}
        subscription.scheduled = lambda *seconds: self._scheduled(
            subscription, *seconds
        )
        if self._thread is not None:
            self.log.join(subscription.consumer.name, self.member)

    def _scheduled(self, subscription: Subscription, *seconds: float) -> int:
        found = list(self._assigned[subscription].values())
        return sum(one.retries.due_after(*seconds) for one in found)

    def start_reading(self) -> None:
        for subscription in self._assigned:
            self.log.join(subscription.consumer.name, self.member)
        self._thread = Thread(target=self._run, name="gomq-log-reader", daemon=True)
        self._thread.start()

    def check(self, message: Message[Any]) -> None:
        if message.delay:
            raise MessageError("a log has no delays", event=message.type)

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        self.check(message)
        if self._is_closing:
            broker = self._around.broker
            raise BrokerClosedError("closed", event=message.type, broker=broker)
        self.log.append(message)
        with self._lock:
            self._published[message.type] += 1

    def _run(self) -> None:
        claim_thread()
        while not self._stop.wait(POLL_SECONDS):
            for subscription in self._assigned:
                self._follow(subscription)
                self._commit(subscription)
                if not self._is_closing:
                    self._fetch(subscription)

    def _follow(self, subscription: Subscription) -> None:
        mine = self._assigned[subscription]
        name = subscription.consumer.name
        now = self.log.assignments(name, self.member)
        for number, assignment in list(mine.items()):
            if now.get(number) != assignment.generation:
                self._revoke(subscription, assignment)
        for number, generation in now.items():
            if number not in mine:
                retries = DelayQueue(self._around.timers, subscription.come_again)
                offset = self.log.committed(name, number)
                mine[number] = Assignment(number, generation, offset, retries)

    def _revoke(self, subscription: Subscription, assignment: Assignment) -> None:
        with self._lock:
            assignment.is_revoked = True
            self._assigned[subscription].pop(assignment.partition)
            retries = assignment.retries.take_all()
        subscription.counts.count_handed_back(len(retries))
        subscription.finish(retries, len(retries))
        subscription.revoke(lambda one: _place(one)[0] is assignment)

    def _commit(self, subscription: Subscription) -> None:
        with self._lock:
            for one in self._assigned[subscription].values():
                place = subscription.consumer.name, one.partition
                if one.lowest != one.committed and self.log.commit(
                    place, one.lowest, self.member, one.generation
                ):
                    one.committed = one.lowest

    def _fetch(self, subscription: Subscription) -> None:
        if subscription.paused:
            return
        for assignment in self._assigned[subscription].values():
            found: list[Delivery] = []
            room = subscription.channel.room
            first = assignment.position
            for message in self.log.read(assignment.partition, first, room):
                offset = assignment.position
                assignment.position += 1
                if subscription.consumer.subscribes_to(message.type):
                    token = assignment, offset
                    found.append(Delivery(message, message.available, 1, token))
                else:
                    with self._lock:
                        assignment.finish(offset)
            rest = subscription.accept(found)
            if rest:
                assignment.position = _place(rest[0])[1]

    def settle(
        self,
        subscription: Subscription,
        settlements: Sequence[tuple[Delivery, Outcome]],
    ) -> list[Settled]:
        with self._lock:
            return [self._settle(subscription, *pair) for pair in settlements]

    def _settle(
        self, subscription: Subscription, delivery: Delivery, outcome: Outcome
    ) -> Settled:
        assignment, offset = _place(delivery)
        if assignment.is_revoked:
            return Settled.LOST_LEASE
        match outcome:
            case RetryAfter(delay, error):
                due = time.monotonic() + delay
                attempt = delivery.attempt + (error is not None)
                again = Delivery(delivery.message, due, attempt, delivery.token)
                assignment.retries.put(again, delay)
                return Settled.KEPT
            case DeadLettered(error):  # before the offset is finished
                self._bury(subscription, delivery, error)
        assignment.finish(offset)
        return Settled.DONE

    def _bury(
        self, subscription: Subscription, delivery: Delivery, error: BaseException
    ) -> None:
        letter = DeadLetter(
            message=delivery.message,
            consumer=subscription.consumer.name,
            attempt=delivery.attempt,
            error=f"{type(error).__name__}: {error}",
            time=time.time(),
        )
        self.log.dead.append(letter)

    def release(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> None:
        # Their offsets stay unfinished: the next member reads them again.
        subscription.counts.count_handed_back(len(deliveries))
        subscription.channel.release(len(deliveries))

    def stop_publishing(self) -> None:
        self._is_closing = True

    def stop_reading(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def close(self) -> None:
        for subscription, assigned in self._assigned.items():
            self._commit(subscription)
            for assignment in list(assigned.values()):
                self._revoke(subscription, assignment)
        self.log.leave(self.member)

    @property
    def is_reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def dead_letters(self) -> list[DeadLetter]:
        return list(self.log.dead)

    def queue_stats(self) -> dict[str, QueueStats]:
        return {
            event: QueueStats(published=count, dispatched=count)
            for event, count in self._published.items()
        }


def _place(delivery: Delivery) -> tuple[Assignment, int]:
    place: Any = delivery.token
    assignment, offset = place
    return assignment, offset
