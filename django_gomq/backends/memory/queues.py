"""The queues of the memory backend, one per event type, and who subscribes to each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.counts import MAX_UNDECLARED_TYPES, OTHER
from django_gomq.bus.errors import NoConsumerError
from django_gomq.bus.message import Message, validate_type
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.stats import QueueStats

from .buffer import PublishBuffer

BLOCKING: Final = ("backpressure", "spill")
"""What a consumer's overflow is that holds its types back where it has no room."""

Match = Callable[[str], tuple[Subscription, ...]]


class Recipients(NamedTuple):
    """Who gets the messages of a queue; one value, so that it changes in one step."""

    subscribers: tuple[Subscription, ...] = ()
    blocking: tuple[Subscription, ...] = ()
    """Those that miss nothing: nothing is taken before they have room."""

    def held_back(self) -> Recipients:
        """Return the same, where a publisher may wait: nothing is to be dropped.

        Who paused a consumer may be who would wait for it: there its overflow decides.
        """
        blocking = tuple(
            subscription
            for subscription in self.subscribers
            if not subscription.paused or subscription in self.blocking
        )
        return Recipients(self.subscribers, blocking)


class SubscriptionIndex:
    """Finds the subscribers of an event type, in the order in which they joined.

    Exact types are one look, however many there are; patterns are tried in turn.
    Threads may ``match`` while one of them adds.
    """

    def __init__(self) -> None:
        self.all: tuple[Subscription, ...] = ()
        self._exact: dict[str, list[Subscription]] = {}
        self._patterns: list[tuple[str, Subscription]] = []
        self.match: Match = self._find
        """Returns who subscribes to an event type; remembers the last 4096 answers."""

    def add(self, subscription: Subscription) -> None:
        """Let one more subscription be found."""
        for text in subscription.consumer.types:
            pattern = Pattern(text)
            if pattern.is_exact:
                self._exact.setdefault(text, []).append(subscription)
            else:
                self._patterns.append((pattern.prefix, subscription))
        self.all = (*self.all, subscription)
        # A new memory: a thread that is filling the old one fills it in vain.
        self.match = functools.lru_cache(4096)(self._find)

    def _find(self, event_type: str) -> tuple[Subscription, ...]:
        exact = self._exact.get(event_type, ())
        by_pattern = [
            subscription
            for prefix, subscription in self._patterns
            if event_type.startswith(prefix)
        ]
        if not by_pattern:
            return tuple(dict.fromkeys(exact))
        found = {*exact, *by_pattern}
        return tuple(subscription for subscription in self.all if subscription in found)


class EventQueue(PublishBuffer[Message[Any]]):
    """The buffer of one event type, between publishers and the dispatcher."""

    def __init__(self, label: str, capacity: int) -> None:
        super().__init__(capacity)
        self.label = label
        self.holds = False
        """Whether every consumer without room holds it back: a publisher may wait."""
        self.recipients = Recipients()
        self.scheduled = False
        """Whether the dispatcher has been told; written under the dispatcher's lock."""
        self.wake: Callable[[], object] | None = None
        """Set by the dispatcher: has it look into this queue."""
        self.dispatched = 0
        """Written by the dispatcher alone."""
        self.delayed = 0
        """Messages that hold a permit and wait for their time."""

    def hold_delayed(self, change: int) -> None:
        """Note that messages began to wait for their time, or ended."""
        with self._lock:
            self.delayed += change

    def put_back(self, batch: Sequence[Message[Any]]) -> None:
        """Put what was just taken where it was."""
        with self._lock:
            for message in reversed(batch):
                self.levels[message.priority].appendleft(message)
            self._out -= len(batch)

    def end_dispatch(self, count: int) -> None:
        """Count messages that were handed on, and give their permits back."""
        with self._lock:
            # In one step: a published count that falls looks like a restart.
            self.dispatched += count
            self._out -= count
            self._add_permits(count)
            woken = self._pop_waiters(count) if self._waiters else ()
        for wake in woken:
            wake()

    @property
    def is_stuck(self) -> bool:
        """Whether nothing can leave before somebody ends a pause."""
        return any(
            subscription.paused and not subscription.inlet.has_room
            for subscription in self.recipients.blocking
        )

    def stats(self) -> QueueStats:
        """Return the numbers of this moment."""
        with self._lock:
            held, dispatched, delayed = (
                self._count_held(),
                self.dispatched,
                self.delayed,
            )
        return QueueStats(
            published=dispatched + held,
            dispatched=dispatched,
            depth=max(0, held - delayed),
            delayed=delayed,
            capacity=self.capacity,
            oldest_age=self._oldest_age(),
        )

    def _oldest_age(self) -> float:
        since = min((first.available for first in self.firsts()), default=None)
        return 0.0 if since is None else max(0.0, Clock.monotonic() - since)


class QueueRegistry:
    """Finds the queue of an event type, and makes it at first use. Thread-safe."""

    def __init__(
        self,
        broker: str,
        capacity: int,
        may_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        self._broker = broker
        self.may_wait = may_wait
        """Whether publishers of this process may wait without being asked to."""
        self._capacity = capacity
        self._lock = Lock()
        self._subscribers = SubscriptionIndex()
        self._other: EventQueue | None = None
        self._undeclared = 0
        self._is_closed = False
        self.by_type: dict[str, EventQueue] = {}
        """Read without a lock by publishers."""

    def subscribe(self, subscription: Subscription) -> None:
        """Send this subscription what it subscribes to, from now on."""
        with self._lock:
            self._subscribers.add(subscription)
            for event_type, queue in self.by_type.items():
                self._connect(queue, self.match(event_type))
            if self._other is not None:
                self._connect(self._other, self._by_pattern)

    def _connect(self, queue: EventQueue, found: Sequence[Subscription]) -> None:
        blocking = tuple(
            subscription
            for subscription in found
            if subscription.consumer.overflow in BLOCKING
        )
        queue.recipients = Recipients(tuple(found), blocking)

    def match(self, event_type: str) -> tuple[Subscription, ...]:
        """Return who subscribes to an event type."""
        return self._subscribers.match(event_type)

    def open(self, event_type: str) -> EventQueue:
        """Return the queue of this type, made now if need be.

        Raises NoConsumerError if nobody subscribes to it, and ConfigurationError if
        it is no event type.
        """
        if not self.match(event_type):
            validate_type(event_type)
            raise NoConsumerError(
                f"No consumer subscribes to {event_type!r}.",
                event=event_type,
                broker=self._broker,
            )
        with self._lock:
            queue = self.by_type.get(event_type)
            return queue if queue is not None else self._open_new(event_type)

    def _open_new(self, event_type: str) -> EventQueue:
        validate_type(event_type)
        found = self.match(event_type)
        if not any(event_type in subscription.consumer.types for subscription in found):
            if self._undeclared >= MAX_UNDECLARED_TYPES:
                return self._shared()
            self._undeclared += 1
        queue = self.by_type[event_type] = self._make(event_type, found)
        return queue

    def _shared(self) -> EventQueue:
        if self._other is None:
            self._other = self._make(OTHER, self._by_pattern)
        return self._other

    @property
    def _by_pattern(self) -> Sequence[Subscription]:
        """Those that may get a type which nobody names."""
        return [each for each in self._subscribers.all if each.consumer.has_patterns]

    def _make(self, label: str, found: Sequence[Subscription]) -> EventQueue:
        queue = EventQueue(label, self._capacity)
        queue.holds = self.may_wait()
        self._connect(queue, found)
        if self._is_closed:
            queue.close()
        return queue

    def close(self) -> None:
        """Let no queue, also none that is made from now on, take a message."""
        with self._lock:
            self._is_closed = True
        for queue in self.all():
            queue.close()

    def all(self) -> list[EventQueue]:
        """Return every queue there is."""
        with self._lock:
            queues = list(self.by_type.values())
            return queues if self._other is None else [*queues, self._other]

    def stats(self) -> dict[str, QueueStats]:
        """Return the numbers of every queue, by event type, also of those to come."""
        unopened = QueueStats(capacity=0 if self._is_closed else self._capacity)
        return {
            **dict.fromkeys(self._exact_types(), unopened),
            **{queue.label: queue.stats() for queue in self.all()},
        }

    def _exact_types(self) -> list[str]:
        types = {
            text
            for subscription in self._subscribers.all
            for text in subscription.consumer.types
        }
        return sorted(text for text in types if Pattern(text).is_exact)
