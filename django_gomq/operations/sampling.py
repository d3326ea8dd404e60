"""A few messages a second of what a process handles, chosen while somebody looks."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import Any, Final

import msgspec
from django.utils.module_loading import import_string

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.dead_letters import trace_id_of
from django_gomq.bus.delivery import (
    ACK,
    DeadLettered,
    Delivery,
    Dropped,
    Outcome,
    RetryAfter,
)
from django_gomq.bus.errors import error_class_name
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.worker.settler import Ended, Results
from django_gomq.site import Site

from .samples import FAILURES, MAX_PAYLOAD, PER_SECOND, RING, MessageFilter, Sample
from .table import ProcessTables

_LASTS_SECONDS: Final = 15.0
"""So long a process samples that does not learn any more whether somebody looks."""
_MAX_KNOWN: Final = 1_000
"""Pairs of event type and consumer of which is noted whether somebody looks at them."""
_PAYLOAD_OF: Final = "django_gomq.dead_letters.payload.payload_of_message"
"""Its module needs the models."""


class Handled(msgspec.Struct, frozen=True, kw_only=True):
    """One message as the process that handled it keeps it for a moment."""

    message: Message[Any]
    broker: str
    consumer: str
    attempt: int
    outcome: Outcome
    wait: float
    duration: float
    ended: float

    @property
    def has_failed(self) -> bool:
        """Whether more should look at it: not what its handler asked for again."""
        return _has_failed(self.outcome)

    def sample(self) -> Sample:
        """Return what is told of it; never raises."""
        return Sample(
            ended=self.ended,
            broker=self.broker,
            event=self.message.type,
            consumer=self.consumer,
            outcome=_word_of(self.outcome),
            reason=_reason_of(self.outcome),
            wait=round(self.wait, 6),
            duration=round(self.duration, 6),
            attempt=self.attempt,
            message=self.message.id,
            trace=trace_id_of(self.message),
            host=socket.gethostname()[:255],
            pid=os.getpid(),
        )


def _has_failed(outcome: Outcome) -> bool:
    return not (
        outcome is ACK or (isinstance(outcome, RetryAfter) and outcome.error is None)
    )


def _word_of(outcome: Outcome) -> str:
    if isinstance(outcome, RetryAfter):
        return "retry"
    if isinstance(outcome, DeadLettered):
        return "dead_letter"
    return "drop" if isinstance(outcome, Dropped) else "ack"


def _reason_of(outcome: Outcome) -> str:
    if isinstance(outcome, Dropped):
        return outcome.reason.value
    error: BaseException | None = getattr(outcome, "error", None)
    return "" if error is None else error_class_name(error)


class Sampler:
    """Chooses up to PER_SECOND messages a second, and keeps RING of them to be told.

    As far as those of this second were not told yet, up to FAILURES failures take the
    places of successes, and the message of a consumer with few that of one with more.
    Thread-safe; nothing blocks but for another thread's choice.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._filters: Sequence[MessageFilter] = ()
        self._until = 0.0
        self._wanted: dict[tuple[str, str], bool] = {}
        """By event type and consumer; the types are those that consumers got."""
        self._second = 0
        self._room = 0
        """How many more may be taken in this second."""
        self._latest: list[Handled] = []
        """Those of this second; another one may still come in the place of each."""
        self._earlier: deque[Handled] = deque(maxlen=RING)

    def look_for(self, filters: Sequence[MessageFilter]) -> None:
        """Sample what these match from now on, and nothing where there are none."""
        with self._lock:
            if tuple(filters) != self._filters:
                self._filters = tuple(filters)
                self._wanted.clear()
            self._until = Clock.monotonic() + _LASTS_SECONDS
            if not filters:
                self._latest.clear()
                self._earlier.clear()

    def shows_payload_of(self, handled: Handled) -> bool:
        """Whether somebody looks at the data of this one."""
        event, consumer = handled.message.type, handled.consumer
        return any(
            message_filter.payload and message_filter.matches(event, consumer)
            for message_filter in self._filters
        )

    def take_out(self) -> Sequence[Handled]:
        """Return those that were not told yet, the oldest first."""
        with self._lock:
            found = [*self._earlier, *self._latest][-RING:]
            self._earlier.clear()
            self._latest.clear()
        return found

    def observe(self, subscription: Subscription, results: Results) -> None:
        """Choose among what a slice brought; an ``Observer`` of the worker."""
        now = Clock.monotonic()
        if now >= self._until:
            return
        with self._lock:
            self._begin_second(int(now))
            failed = self._wanted_of(results.ended, subscription)
            for delivery, outcome in islice(failed, PER_SECOND):
                self._offer(subscription, delivery, outcome, results)
            done = ((delivery, ACK) for delivery in results.done)
            # Where there is no room, one is enough to learn that.
            found = islice(self._wanted_of(done, subscription), max(1, self._room))
            for delivery, outcome in found:
                self._offer(subscription, delivery, outcome, results)

    def _begin_second(self, second: int) -> None:
        if second != self._second:
            self._earlier.extend(self._latest)
            self._latest.clear()
            self._second, self._room = second, PER_SECOND

    def _wanted_of(
        self, ended: Iterable[Ended], subscription: Subscription
    ) -> Iterator[Ended]:
        consumer = subscription.consumer.name
        return (
            pair for pair in ended if self._is_wanted(pair[0].message.type, consumer)
        )

    def _offer(
        self,
        subscription: Subscription,
        delivery: Delivery,
        outcome: Outcome,
        results: Results,
    ) -> None:
        if self._room:
            self._room -= 1
        else:
            consumer, has_failed = subscription.consumer.name, _has_failed(outcome)
            place = self._place_for(consumer, has_failed=has_failed)
            if place is None:
                return
            del self._latest[place]
        self._latest.append(_handled(subscription, delivery, outcome, results))

    def _is_wanted(self, event: str, consumer: str) -> bool:
        key = event, consumer
        if key not in self._wanted:
            if len(self._wanted) >= _MAX_KNOWN:
                self._wanted.clear()
            self._wanted[key] = any(
                message_filter.matches(*key) for message_filter in self._filters
            )
        return self._wanted[key]

    def _place_for(self, consumer: str, *, has_failed: bool) -> int | None:
        """Return which one of this second such a message is better than, if any."""
        counts = Counter(handled.consumer for handled in self._latest)
        failures = sum(handled.has_failed for handled in self._latest)
        is_better = failures < FAILURES if has_failed else failures > FAILURES
        others = [
            (counts[handled.consumer], place)
            for place, handled in enumerate(self._latest)
            if handled.has_failed is not (has_failed if is_better else not has_failed)
        ]
        if not others:
            return None
        count, place = max(others)
        return place if is_better or counts[consumer] + 1 < count else None


def _handled(
    subscription: Subscription, delivery: Delivery, outcome: Outcome, results: Results
) -> Handled:
    began, ended = _times_of(delivery, results)
    return Handled(
        message=delivery.message,
        broker=subscription.broker,
        consumer=subscription.consumer.name,
        attempt=delivery.attempt,
        outcome=outcome,
        wait=max(0.0, began - delivery.available),
        duration=ended - began,
        ended=time.time() - max(0.0, Clock.monotonic() - ended),
    )


def _times_of(delivery: Delivery, results: Results) -> tuple[float, float]:
    """Return when the attempt began and ended, in monotonic seconds."""
    for place, served in enumerate(results.served):
        if served is delivery:
            return results.times[place], results.times[place + 1]
    now = Clock.monotonic()  # it has just ended, alone or with its batch
    return now - results.durations[-1], now


class Sampling:
    """Has a process sample while somebody looks, and tells what it sampled.

    For one thread.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sampler = Sampler()
        self._is_on = False

    def follow(self, tables: ProcessTables, filters: Sequence[MessageFilter]) -> None:
        """Sample what these match, and write what was sampled since the last time.

        Where nobody looks any more, what this process wrote is deleted. Blocks; raises
        what the database raises.
        """
        if not (filters or self._is_on):
            return
        self._sampler.look_for(filters)
        if self._site.worker is not None:
            self._site.worker.observe(self._sampler.observe if filters else None)
        self._is_on = True  # until what was written is deleted
        if filters:
            found = self._sampler.take_out()
            tables.tell_messages([self._told(handled) for handled in found])
        else:
            tables.forget_messages()
            self._is_on = False

    def _told(self, handled: Handled) -> tuple[Sample, str | None]:
        if not self._sampler.shows_payload_of(handled):
            return handled.sample(), None
        payload_of: Callable[..., str] = import_string(_PAYLOAD_OF)
        return handled.sample(), payload_of(handled.message, MAX_PAYLOAD)
