"""The end of deliveries: counted, settled, their room given back, reported."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter, sub
from typing import Protocol

import msgspec

from django_gomq.bus.backend import Capabilities, Settled, Settlement
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.counts import ConsumerCounts
from django_gomq.bus.dead_letters import DeadLetter, make_dead_letter
from django_gomq.bus.delivery import (
    ACK,
    Chunk,
    DeadLettered,
    Delivery,
    Dropped,
    Outcome,
    RetryAfter,
    Verdict,
)
from django_gomq.bus.process.clock import Clock

Ended = tuple[Delivery, Outcome]
Conclude = Callable[[Sequence[Settlement], Sequence[Settled]], None]

_TYPE = attrgetter("message.type")


class Results(msgspec.Struct):
    """What became of a slice; waits and durations are in seconds."""

    done: Sequence[Delivery] = ()
    """Those that succeeded."""
    ended: list[Ended] = []
    """All others, each with its outcome."""
    served: Sequence[Delivery] = ()
    """Deliveries that were handled one after the other, at ``times``."""
    times: list[float] = []
    """When the first of them began and each one ended, by ``Clock.monotonic()``."""
    waits: list[float] = []
    """Of what was handled in another way."""
    durations: list[float] = []
    exemplars: list[tuple[float, str]] = []
    """Durations of attempts whose trace is kept."""
    in_flight: int = 0
    """How many were noted to be in the handler, which this ends."""


class Batcher(Protocol):
    """Who tells a server how deliveries ended, without keeping us waiting."""

    def add(
        self,
        conclude: Conclude,
        settlements: Sequence[Settlement],
        *,
        is_urgent: bool = False,
    ) -> None:
        """Have these told, and ``conclude`` called with them and the answers."""


class Holder(Protocol):
    """Who knows what this process holds of a server: the bus's reader."""

    def exchange(self, delivery: Delivery, following: Delivery) -> bool:
        """Hold the second in the place of the first; return whether that was held."""

    def let_go(self, deliveries: Iterable[Delivery]) -> None:
        """Hold these no more."""


class Settler:
    """Ends deliveries of one subscription, many at a time; thread-safe.

    Counts and dead letters come before permits: a reader of both sees a message twice
    for a moment, and never not at all, and who waited for the end finds the letter.
    Permits and wake-ups come before any observer.
    """

    def __init__(
        self,
        subscription: Subscription,
        capabilities: Capabilities,
        *,
        keep: Callable[[DeadLetter], object],
        batcher: Batcher | None = None,
        holder: Holder | None = None,
    ) -> None:
        """``keep`` takes dead letters where the server keeps none.

        Without a ``batcher`` nobody has to be told how deliveries end.
        """
        self._subscription = subscription
        self._keep = keep
        self._keeps_here = not capabilities.dead_letters
        # An ordered consumer keeps its key until the end: so its retries wait here.
        self._retries_here = (
            not capabilities.delayed_retry or subscription.consumer.ordered_by_key
        )
        self._batcher = batcher
        self._holder = holder
        self._conclude_unstarted = partial(self._conclude, is_started=False)
        consumer = subscription.consumer
        is_single = len(consumer.types) == 1 and not consumer.has_patterns
        self._only_type = consumer.types[0] if is_single else None

    def settle(self, results: Results) -> None:
        """End what a slice brought; does not wait for a server."""
        if self._batcher is not None:
            self._settle_later(results, self._batcher)
        elif results.ended:
            self._settle_now(results)
        else:
            with self._subscription.counts.lock:
                self._observe(results)
                self._count_done(results.done)
            self._subscription.finish(results.done, len(results.done))

    def _settle_now(self, results: Results) -> None:
        again = [pair for pair in results.ended if isinstance(pair[1], RetryAfter)]
        over = [pair for pair in results.ended if not isinstance(pair[1], RetryAfter)]
        letters = [self._letter_of(delivery, outcome) for delivery, outcome in over]
        with self._subscription.counts.lock:
            self._observe(results)
            self._count_done(results.done)
            for delivery, outcome in results.ended:
                self._count_ended(delivery, outcome)
        for letter in letters:
            if letter is not None:
                self._keep(letter)
        finished = [*results.done, *(delivery for delivery, _ in over)]
        self._subscription.finish(finished, len(finished))
        for delivery, outcome in again:
            self._retry_here(delivery, outcome)
        self._report(results.ended)

    def _settle_later(self, results: Results, batcher: Batcher) -> None:
        kept = results.ended if self._retries_here else []
        again = [pair for pair in kept if isinstance(pair[1], RetryAfter)]
        told = [pair for pair in results.ended if pair not in again]
        name = self._subscription.consumer.name
        settlements = [Settlement(name, delivery, ACK) for delivery in results.done]
        settlements += [
            Settlement(name, delivery, outcome, self._letter_of(delivery, outcome))
            for delivery, outcome in told
        ]
        with self._subscription.counts.lock:
            # In this order: a drain looks without the lock, and must see one of them.
            self._subscription.unsettled += len(settlements)
            self._observe(results)
            for delivery, outcome in again:
                self._count_ended(delivery, outcome)
        for delivery, outcome in again:
            self._retry_here(delivery, outcome)
        # The next of a key waits for the answer.
        is_urgent = self._subscription.consumer.ordered_by_key
        batcher.add(self._conclude, settlements, is_urgent=is_urgent)
        self._report(again)

    def give_up(self, delivery: Delivery, error: BaseException) -> None:
        """Make a dead letter of a delivery that was handed out and is not to start."""
        assert self._batcher is not None  # noqa: S101 - a server handed it out
        subscription, name = self._subscription, self._subscription.consumer.name
        outcome = DeadLettered(error, Verdict.REJECTED)
        letter = self._letter_of(delivery, outcome)
        subscription.channel.force_permit()
        subscription.counts.count_dispatched(delivery.message.type, 1)
        with subscription.counts.lock:
            subscription.unsettled += 1
        self._batcher.add(
            self._conclude_unstarted, [Settlement(name, delivery, outcome, letter)]
        )

    def _conclude(
        self,
        settlements: Sequence[Settlement],
        answers: Sequence[Settled],
        *,
        is_started: bool = True,
    ) -> None:
        """End what a server was told of; every answer is DONE or LOST_LEASE."""
        subscription = self._subscription
        pairs = list(zip(settlements, answers, strict=True))
        done = [settled for settled, answer in pairs if answer is Settled.DONE]
        deliveries = [settled.delivery for settled in settlements]
        with subscription.counts.lock:
            subscription.unsettled -= len(settlements)
            self._count_done(
                [settled.delivery for settled in done if settled.outcome is ACK]
            )
            for settled, answer in pairs:
                if answer is Settled.LOST_LEASE:
                    subscription.counts.count_lost_leases(
                        [settled.delivery.message.type]
                    )
                elif settled.outcome is not ACK:
                    self._count_ended(settled.delivery, settled.outcome)
        assert self._holder is not None  # noqa: S101 - who tells a server has one
        self._holder.let_go(deliveries)
        for settled in done:
            if settled.dead_letter is not None and self._keeps_here:
                self._keep(settled.dead_letter)
        # What was never started holds no key.
        subscription.finish(deliveries if is_started else (), len(deliveries))
        self._report(
            [
                (settled.delivery, settled.outcome)
                for settled in done
                if settled.outcome is not ACK
            ]
        )

    def _letter_of(self, delivery: Delivery, outcome: Outcome) -> DeadLetter | None:
        if not isinstance(outcome, DeadLettered):
            return None
        broker, name = self._subscription.broker, self._subscription.consumer.name
        return make_dead_letter(broker, name, delivery, outcome.error)

    def _retry_here(self, delivery: Delivery, outcome: Outcome) -> None:
        assert isinstance(outcome, RetryAfter)  # noqa: S101 - all that come are
        first_failed = delivery.first_failed
        if first_failed is None and outcome.error is not None:
            first_failed = time.time()
        following = Delivery(
            delivery.message,
            Clock.monotonic() + outcome.delay,
            delivery.attempt + (outcome.error is not None),
            delivery.token,
            delivery.deliveries,
            outcome.times,
            first_failed,
        )
        if self._holder is None or self._holder.exchange(delivery, following):
            self._subscription.retry(following, outcome.delay)
        else:  # it was given to somebody else meanwhile
            self._subscription.counts.count_handed_back(1)
            self._subscription.finish([delivery], 1)

    def _observe(self, results: Results) -> None:
        """Count the end of handlers. The caller holds the lock of the counts."""
        counts = self._subscription.counts
        self._subscription.in_flight -= results.in_flight
        if results.served:
            _observe_served(counts, results.served, results.times)
        else:
            counts.wait.observe_all(results.waits)
            counts.duration.observe_all(results.durations)
        for seconds, trace_id in results.exemplars:
            counts.duration.keep_exemplar(seconds, trace_id)

    def _count_done(self, done: Sequence[Delivery]) -> None:
        counts, only_type = self._subscription.counts, self._only_type
        if only_type is not None:
            if done:
                counts.count_successes(only_type, len(done))
            return
        for event_type, count in Counter(map(_TYPE, done)).items():
            counts.count_successes(event_type, count)

    def _count_ended(self, delivery: Delivery, outcome: Outcome) -> None:
        counts = self._subscription.counts
        event_type = delivery.message.type
        match outcome:
            case RetryAfter(_, error, verdict):
                counts.retries += 1
                if not self._retries_here:
                    counts.handed_back += 1  # the server brings it again
                if error is not None:
                    counts.count_failure(event_type, verdict, error)
            case DeadLettered(error, verdict):
                counts.dead_lettered += 1
                counts.count_failure(event_type, verdict, error)
            case Dropped(reason):  # pragma: no branch - there is no other
                counts.add_drop(event_type, reason)

    def _report(self, ended: Sequence[Ended]) -> None:
        for delivery, outcome in ended:
            self._report_one(delivery, outcome)

    def _report_one(self, delivery: Delivery, outcome: Outcome) -> None:
        notify = self._subscription.hooks.notify
        broker, name = self._subscription.broker, self._subscription.consumer.name
        message, attempt = delivery.message, delivery.attempt
        match outcome:
            case RetryAfter():
                notify(
                    lambda hook: hook.retrying(broker, name, message, attempt, outcome)
                )
            case DeadLettered(error):
                notify(
                    lambda hook: hook.dead_lettered(
                        broker, name, message, attempt, error
                    )
                )
            case Dropped(reason):  # pragma: no branch - there is no other
                notify(lambda hook: hook.dropped(broker, name, [message], reason))


def _observe_served(
    counts: ConsumerCounts, served: Sequence[Delivery], times: list[float]
) -> None:
    """Count waits and durations. The caller holds the lock of the counts.

    An attempt begins where the one before it ended.
    """
    if len(served) == 1:
        counts.duration.observe(times[1] - times[0])
        counts.wait.observe(times[0] - served[0].available)
        return
    counts.duration.observe_between(times)
    available = (served if isinstance(served, Chunk) else Chunk(served)).available
    counts.wait.observe_all(list(map(sub, times, available)))
