"""One consumer at one broker: its channel, its overflow policy, its numbers."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Generic, TypeVar

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.counts import ConsumerCounts
from django_gomq.bus.delivery import Delivery, DropReason, join
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ConsumerStats

from .channel import Channel
from .key_order import KeyOrder

T = TypeVar("T")


class _Pops(Iterator[T], Generic[T]):
    """An iterator that threads may share where no interpreter lock guards them."""

    def __init__(self, items: Sequence[T]) -> None:
        self._pop = deque(items).popleft

    def __next__(self) -> T:
        try:
            return self._pop()
        except IndexError:
            raise StopIteration from None


def choose_shared_iterator(has_lock: bool) -> Callable[[Sequence[T]], Iterator[T]]:
    """Return how to make an iterator of which each item goes to one thread only.

    Under the interpreter lock that is the list's own: a step of it is one C call, and
    takes 6 ns where a shared deque takes 25.
    """
    return iter if has_lock else _Pops


shared_iterator = choose_shared_iterator(
    getattr(sys, "_is_gil_enabled", lambda: True)()
)
"""Begins to work off a list of which another thread may take the rest: ``list()``."""


class Subscription:
    """What a reader reads for: offers deliveries, and the worker takes them.

    All methods are thread-safe and none blocks.
    """

    def __init__(
        self,
        broker: str,
        consumer: Consumer,
        *,
        hooks: Hooks,
        counts: ConsumerCounts | None = None,
    ) -> None:
        self.broker = broker
        self.consumer = consumer
        self.hooks = hooks
        self.counts = counts or ConsumerCounts()
        self.channel: Channel[Delivery] = Channel(consumer.capacity, join)
        self.keys = KeyOrder(self.channel) if consumer.ordered_by_key else None
        self.free_slots: deque[None] = deque(repeat(None, consumer.concurrency))
        """One for each thread (or task) that may still serve this subscription."""
        self.on_work: Callable[[], object] = _nobody
        """Set by the worker: called when there may be work."""
        self.paused = False
        self.draining = False
        """Nothing lingers any more: the broker drains."""
        self.in_flight = 0
        """Deliveries inside the handler; written under the lock of the counts."""
        self.unstarted: dict[int, Iterator[Delivery]] = {}
        """What threads took and did not start yet, by thread."""
        self.scheduled: Callable[..., int] = _none_later
        """Set by the backend: how many of our deliveries wait for their time, and
        come back only after the seconds given, if any are."""
        self.mean_seconds = 0.0
        """Seconds that a delivery takes, as a moving average; 0 as long as unknown."""

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Take in deliveries of one type and priority; policy drops what has no room.

        Other subscriptions may hold the same sequence: nobody changes it.
        """
        first = deliveries[0].message
        self.counts.count_dispatched(first.type, len(deliveries))
        room = self.channel.put_chunk(deliveries, first.priority)
        if room < len(deliveries):
            self._overflow(deliveries[room:])
        if room:
            self.notify()

    def offer_reserved(self, deliveries: Sequence[Delivery]) -> None:
        """Take in such deliveries, for which ``reserve`` found room."""
        first = deliveries[0].message
        self.counts.count_dispatched(first.type, len(deliveries))
        self.channel.put_permitted(deliveries, first.priority)
        self.notify()

    def accept(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Take in what a server handed out; return what found no room after all."""
        room = self.channel.try_permits(len(deliveries))
        taken, rest = deliveries[:room], deliveries[room:]
        for event_type, count in Counter(
            delivery.message.type for delivery in taken
        ).items():
            self.counts.count_dispatched(event_type, count)
        for delivery in taken:
            self.channel.put_permitted((delivery,), delivery.message.priority)
        if taken:
            self.notify()
        return rest

    def reserve(self, wanted: int) -> int:
        """Take room for up to that many deliveries; return how much there was."""
        return self.channel.try_permits(wanted)

    def _overflow(self, arriving: Sequence[Delivery]) -> None:
        if self.consumer.overflow == "drop_oldest":
            arriving = self._evict_for(arriving)
        if arriving:
            self.count_drops(
                [delivery.message for delivery in arriving], DropReason.CHANNEL_FULL
            )

    def _evict_for(self, arriving: Sequence[Delivery]) -> Sequence[Delivery]:
        evicted: list[Message[Any]] = []
        for delivery in arriving:
            priority = delivery.message.priority
            victim = self.channel.evict_oldest(up_to=priority)
            if victim is None:
                break
            self.channel.put_permitted((delivery,), priority)
            evicted.append(victim.message)
        if evicted:
            self.count_drops(evicted, DropReason.EVICTED)
            self.notify()
        return arriving[len(evicted) :]

    def count_drops(self, messages: Sequence[Message[Any]], reason: DropReason) -> None:
        """Count and report messages that this consumer will never see."""
        self.counts.count_dropped((message.type for message in messages), reason)
        self.hooks.notify(
            lambda hook: hook.dropped(self.broker, self.consumer.name, messages, reason)
        )

    def come_again(self, delivery: Delivery) -> None:
        """Take back a delivery that was scheduled and kept its permit."""
        if self.keys is not None:
            self.keys.admit_again(delivery)
        else:
            self.channel.put_again(delivery, delivery.message.priority)
        self.notify()

    def notify(self) -> None:
        """Tell the worker that there may be work."""
        if self.free_slots and not self.paused:
            self.on_work()

    def notify_all(self) -> None:
        """Tell the worker once for each free turn, as after a pause."""
        for _ in range(len(self.free_slots)):
            self.notify()

    @property
    def has_work(self) -> bool:
        """Whether a delivery waits that could be started."""
        return bool(self.channel) or bool(self.keys)

    def take(self, most: int) -> Sequence[Delivery]:
        """Return up to ``most`` deliveries to start; they keep their permits."""
        source = self.channel if self.keys is None else self.keys
        return source.take(most)

    def begin(self, count: int) -> None:
        """Note that deliveries go into the handler; their settlement ends that."""
        with self.counts.lock:
            self.in_flight += count

    def end(self, count: int) -> None:
        """Note that deliveries left the handler without a settlement."""
        self.begin(-count)

    def put_back(self, deliveries: list[Delivery]) -> None:
        """Return deliveries that were taken and not started, to be the next."""
        if self.keys is not None:
            self.keys.put_back(deliveries)
        else:
            self.channel.put_back(
                [(delivery, delivery.message.priority) for delivery in deliveries]
            )

    def finish(self, deliveries: Iterable[Delivery], count: int) -> None:
        """Give back the permits, and the keys, of deliveries that are settled."""
        if self.keys is not None:
            for delivery in deliveries:
                if self.keys.finish(delivery):
                    self.notify()
        if count:
            self.channel.release(count)

    def take_where(self, is_wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove and return what waits and is wanted; it keeps its permits."""
        # In this order: a key that is freed admits only what nobody wants.
        taken = self.channel.take_where(is_wanted)
        return (
            self.keys.take_where(is_wanted) if self.keys is not None else []
        ) + taken

    def take_all(self) -> list[Delivery]:
        """Remove and return everything that was not started; for a stop."""
        in_hand = [
            delivery for hand in list(self.unstarted.values()) for delivery in hand
        ]
        return in_hand + self.take_where(lambda _: True)

    def revoke(self, is_lost: Callable[[Delivery], bool]) -> int:
        """Forget what waits and was given to somebody else; return how many those were.

        For backends: what is in work is left, and its settlement answers LOST_LEASE.
        """
        # What a thread holds in its hands may wait long behind a slow handler.
        for hand in list(self.unstarted.values()):
            self.put_back(list(hand))
        lost = self.take_where(is_lost)
        self.counts.count_handed_back(len(lost))
        self.channel.release(len(lost))
        if self.has_work:
            self.notify()
        return len(lost)

    def _oldest_age(self) -> float:
        firsts = self.channel.firsts()
        if self.keys is not None:
            firsts += self.keys.firsts()
        if not firsts:
            return 0.0
        oldest = min(first.available for first in firsts)
        return max(0.0, time.monotonic() - oldest)

    def stats(self) -> ConsumerStats:
        """Return the numbers of this moment."""
        counts = self.counts
        with counts.lock:
            scheduled = self.scheduled()
            depth = self.channel.held - scheduled - self.in_flight
            return ConsumerStats(
                dispatched=dict(counts.dispatched),
                processed=dict(counts.processed),
                dropped=dict(counts.dropped),
                succeeded=counts.succeeded,
                dead_lettered=counts.dead_lettered,
                retries=counts.retries,
                depth=max(0, depth),
                scheduled=scheduled,
                in_flight=self.in_flight,
                capacity=self.channel.capacity,
                oldest_age=self._oldest_age(),
                paused=self.paused,
                handed_back=counts.handed_back,
                exceptions=dict(counts.exceptions),
                last_success=counts.last_success,
                wait=counts.wait.state(),
                duration=counts.duration.state(),
            )


def _none_later(seconds: float = 0.0) -> int:
    return 0


def _nobody() -> None:
    """Before a worker serves it, work waits."""
