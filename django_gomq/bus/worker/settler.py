"""The end of deliveries: settled, counted, reported, and their room given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter, sub

import msgspec

from django_gomq.bus.backend import Backend, Settled
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.counts import ConsumerCounts
from django_gomq.bus.delivery import (
    Chunk,
    DeadLettered,
    Delivery,
    Dropped,
    Outcome,
    RetryAfter,
)

Ended = tuple[Delivery, Outcome]

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
    """When the first of them began and each one ended, by ``time.monotonic()``."""
    waits: list[float] = []
    """Of what was handled in another way."""
    durations: list[float] = []
    exemplars: list[tuple[float, str]] = []
    """Durations of attempts whose trace is kept."""
    in_flight: int = 0
    """How many were noted to be in the handler, which this ends."""


class Settler:
    """Ends deliveries of one subscription, many at a time; thread-safe."""

    def __init__(self, subscription: Subscription, backend: Backend) -> None:
        self._subscription = subscription
        self._backend = backend
        consumer = subscription.consumer
        is_single = len(consumer.types) == 1 and not consumer.has_patterns
        self._only_type = consumer.types[0] if is_single else None

    def settle(self, results: Results) -> None:
        """Tell the backend, count, and give permits back.

        Counts come before permits, so that a reader of both sees a message twice for a
        moment, and never not at all.
        """
        done, ended = results.done, results.ended
        lost = self._ack(done) if done else ()
        answers = self._end(ended) if ended else []
        self._count(results, lost, answers)
        if not ended:
            self._subscription.finish(done, len(done))
            return
        self._report(ended, answers)
        finished = [
            pair[0]
            for pair, answer in zip(ended, answers, strict=True)
            if answer is not Settled.KEPT
        ]
        self._subscription.finish([*done, *finished], len(done) + len(finished))

    def _ack(self, done: Sequence[Delivery]) -> Sequence[Delivery]:
        try:
            return self._backend.ack(self._subscription, done)
        except Exception as error:  # noqa: BLE001 - the runner went away
            self._report_failure(error)
            return done  # whether it knows or not: it may hand them out again

    def _end(self, ended: Sequence[Ended]) -> list[Settled]:
        try:
            return self._backend.settle(self._subscription, ended)
        except Exception as error:  # noqa: BLE001 - the runner went away
            self._report_failure(error)
            return [Settled.LOST_LEASE] * len(ended)

    def _report_failure(self, error: Exception) -> None:
        self._subscription.hooks.notify(lambda hook: hook.failed("settle", error))

    def _count(
        self, results: Results, lost: Sequence[Delivery], answers: Sequence[Settled]
    ) -> None:
        counts = self._subscription.counts
        done = results.done
        with counts.lock:
            self._subscription.in_flight -= results.in_flight
            if lost:
                counts.count_lost_leases([delivery.message.type for delivery in lost])
                done = [delivery for delivery in done if delivery not in lost]
            self._count_done(done)
            for (delivery, outcome), answer in zip(results.ended, answers, strict=True):
                self._count_ended(delivery, outcome, answer)
            if results.served:
                _observe(counts, results.served, results.times)
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

    def _count_ended(
        self, delivery: Delivery, outcome: Outcome, answer: Settled
    ) -> None:
        counts = self._subscription.counts
        event_type = delivery.message.type
        if answer is Settled.LOST_LEASE:
            counts.count_lost_leases([event_type])
            return
        match outcome:
            case RetryAfter(_, error, verdict):
                counts.retries += 1
                if answer is not Settled.KEPT:
                    counts.handed_back += 1  # the runner brings it again
                if error is not None:
                    counts.count_failure(event_type, verdict, error)
            case DeadLettered(error, verdict):
                counts.dead_lettered += 1
                counts.count_failure(event_type, verdict, error)
            case Dropped(reason):  # pragma: no branch - there is no other
                counts.add_drop(event_type, reason)

    def _report(self, ended: Sequence[Ended], answers: Sequence[Settled]) -> None:
        for (delivery, outcome), answer in zip(ended, answers, strict=True):
            if answer is not Settled.LOST_LEASE:
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


def _observe(
    counts: ConsumerCounts, served: Sequence[Delivery], times: list[float]
) -> None:
    """Count waits and durations. The caller holds the lock of the counts.

    An attempt begins where the one before it ended. Each is counted in its own bucket;
    where the ends of a run show that all share one, none has to be looked at: 0.1 us
    for 256, not 20.
    """
    first, last, count = times[0], times[-1], len(served)
    if count == 1:
        counts.duration.observe(last - first)
        counts.wait.observe(first - served[0].available)
        return
    spent = last - first
    if not counts.duration.observe_within(0.0, spent, spent, count):
        counts.duration.observe_all(list(map(sub, times[1:], times)))
    waiting = (served if isinstance(served, Chunk) else Chunk(served)).waiting
    total = sum(times) - last - waiting.total
    least, most = first - waiting.latest, times[-2] - waiting.earliest
    if not counts.wait.observe_within(least, most, total, count):
        counts.wait.observe_all(list(map(sub, times, waiting.available)))
