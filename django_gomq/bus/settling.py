"""The end of deliveries: settled, counted, reported, and their room given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .backend import Backend, Settled
from .delivery import Delivery
from .outcome import ACK, DeadLettered, Dropped, Outcome, RetryAfter
from .subscription import Subscription

Ended = tuple[Delivery, Outcome]


@dataclass(slots=True)
class Results:
    """What became of a slice; durations are in nanoseconds."""

    done: list[Delivery] = field(default_factory=list)
    """Those that succeeded."""
    ended: list[Ended] = field(default_factory=list)
    """All others, each with its outcome."""
    waits: list[int] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    exemplars: list[tuple[int, str]] = field(default_factory=list)
    """Durations of attempts whose trace is kept."""

    def add(self, delivery: Delivery, outcome: Outcome) -> None:
        """Note how a delivery ended."""
        if outcome is ACK:
            self.done.append(delivery)
        else:
            self.ended.append((delivery, outcome))

    def time(self, wait_ns: int, duration_ns: int, trace_id: str | None) -> None:
        """Note how long an attempt waited and took."""
        self.waits.append(max(0, wait_ns))
        self.durations.append(duration_ns)
        if trace_id is not None:
            self.exemplars.append((duration_ns, trace_id))


class Settler:
    """Ends deliveries of one subscription, many at a time; thread-safe."""

    def __init__(self, subscription: Subscription, backend: Backend) -> None:
        self._subscription = subscription
        self._backend = backend

    def settle(self, results: Results) -> None:
        """Tell the backend, count, and give permits back.

        Counts come before permits, so that a reader of both sees a message twice for a
        moment, and never not at all.
        """
        done, ended = results.done, results.ended
        lost = self._ack(done) if done else []
        answers = self._end(ended) if ended else []
        self._count(results, lost, answers)
        self._report(ended, answers)
        kept = answers.count(Settled.KEPT)
        finished = [
            pair[0]
            for pair, answer in zip(ended, answers, strict=True)
            if answer is not Settled.KEPT
        ]
        self._subscription.finish([*done, *finished], len(done) + len(ended) - kept)

    def _ack(self, done: Sequence[Delivery]) -> Sequence[Delivery]:
        try:
            return self._backend.ack(self._subscription, done)
        except Exception as error:  # noqa: BLE001 - the server went away
            self._report_failure(error)
            return done  # whether it knows or not: it may hand them out again

    def _end(self, ended: Sequence[Ended]) -> list[Settled]:
        try:
            return self._backend.settle(self._subscription, ended)
        except Exception as error:  # noqa: BLE001 - the server went away
            self._report_failure(error)
            return [Settled.LOST_LEASE] * len(ended)

    def _report_failure(self, error: Exception) -> None:
        self._subscription.hooks.tell(lambda hook: hook.failed("settle", error))

    def _count(
        self, results: Results, lost: Sequence[Delivery], answers: Sequence[Settled]
    ) -> None:
        counts = self._subscription.counts
        done = results.done
        with counts.lock:
            if lost:
                counts.count_lost_leases([one.message.type for one in lost])
                done = [one for one in done if one not in lost]
            if done:
                counts.count_successes([one.message.type for one in done])
            for (delivery, outcome), answer in zip(results.ended, answers, strict=True):
                self._count_ended(delivery, outcome, answer)
            counts.wait.observe_all(results.waits)
            counts.duration.observe_all(results.durations)
            for value_ns, trace_id in results.exemplars:
                counts.duration.keep_exemplar(value_ns, trace_id)

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
                    counts.handed_back += 1  # the server brings it again
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
        tell = self._subscription.hooks.tell
        broker, name = self._subscription.broker, self._subscription.consumer.name
        message, attempt = delivery.message, delivery.attempt
        match outcome:
            case RetryAfter():
                tell(
                    lambda hook: hook.retrying(broker, name, message, attempt, outcome)
                )
            case DeadLettered(error):
                tell(
                    lambda hook: hook.dead_lettered(
                        broker, name, message, attempt, error
                    )
                )
            case Dropped(reason):  # pragma: no branch - there is no other
                tell(lambda hook: hook.dropped(broker, name, [message], reason))
