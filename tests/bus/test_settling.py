"""The end of deliveries: whatever a backend answers, the books agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.backend import Settled
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import (
    ACK,
    CUT_OFF,
    EXPIRED,
    DeadLettered,
    Delivery,
    Outcome,
    RetryAfter,
    Verdict,
)
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.worker.settler import Results, Settler
from tests.bus.observing import Recorder

OUTCOMES: list[Outcome] = [
    ACK,
    ACK,
    ACK,
    RetryAfter(1.0, ValueError()),
    RetryAfter(1.0, TimeoutError(), Verdict.TIMEOUT),
    RetryAfter(1.0, None),
    DeadLettered(KeyError()),
    DeadLettered(KeyError(), Verdict.REJECTED),
    EXPIRED,
    CUT_OFF,
]
ANSWERS = [Settled.DONE, Settled.DONE, Settled.KEPT, Settled.LOST_LEASE]
Plan = list[tuple[Outcome, Settled, str]]
PLANS = st.lists(
    st.tuples(
        st.sampled_from(OUTCOMES),
        st.sampled_from(ANSWERS),
        st.sampled_from(["a.b", "a.c"]),
    ),
    max_size=20,
)


class ConsumerRunner:
    """A backend that answers as it is told, or is away."""

    def __init__(self, answers: dict[Delivery, Settled], is_away: bool = False) -> None:
        self._answers = answers
        self._is_away = is_away
        self.told: list[tuple[Delivery, Outcome]] = []

    def ack(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> list[Delivery]:
        self._tell([(one, ACK) for one in deliveries])
        lost = Settled.LOST_LEASE
        return [one for one in deliveries if self._answers[one] is lost]

    def settle(
        self,
        subscription: Subscription,
        settlements: Sequence[tuple[Delivery, Outcome]],
    ) -> list[Settled]:
        self._tell(settlements)
        return [self._answers[one] for one, _ in settlements]

    def _tell(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> None:
        if self._is_away:
            raise ConnectionError
        self.told += settlements


def subscribe(*types: str, hook: Recorder | None = None) -> Subscription:
    consumer = make_consumer(list(types), print, name="c", options={})
    return Subscription("default", consumer, hooks=Hooks([hook] if hook else []))


def in_work(subscription: Subscription, events: list[str]) -> list[Delivery]:
    """Return deliveries of these types that were taken and are in the handler."""
    made = [Delivery(Message(event), 0.0) for event in events]
    for one in made:
        subscription.offer([one])
    assert len(subscription.take(1000)) == len(made)
    subscription.begin(len(made))
    return made


def results(pairs: list[tuple[Delivery, Outcome]]) -> Results:
    return Results(
        done=[one for one, outcome in pairs if outcome is ACK],
        ended=[pair for pair in pairs if pair[1] is not ACK],
        waits=[0.5] * len(pairs),
        durations=[0.25] * len(pairs),
        in_flight=len(pairs),
    )


@given(PLANS, st.sampled_from([("a.b",), ("a.b", "a.c"), ("a.*",)]), st.booleans())
@settings(deadline=None, max_examples=200)
def test_what_is_settled_counts_as_a_naive_book_says(
    plan: Plan, types: tuple[str, ...], is_away: bool
) -> None:
    hook = Recorder()
    subscription = subscribe(*types, hook=hook)
    # A success cannot be kept, and what is away has lost all leases.
    plan = [
        (
            outcome,
            Settled.LOST_LEASE
            if is_away
            else Settled.DONE
            if answer is Settled.KEPT and not isinstance(outcome, RetryAfter)
            else answer,
            event if len(types) > 1 or types == ("a.*",) else "a.b",
        )
        for outcome, answer, event in plan
    ]
    made = in_work(subscription, [event for _, _, event in plan])
    answers = {one: answer for one, (_, answer, _) in zip(made, plan, strict=True)}
    runner: Any = ConsumerRunner(answers, is_away)
    pairs = [(one, outcome) for one, (outcome, _, _) in zip(made, plan, strict=True)]

    Settler(subscription, runner).settle(results(pairs))

    registry = Book(plan)
    counts, stats = subscription.counts, subscription.stats()
    assert counts.processed == registry.processed
    assert counts.exceptions == registry.exceptions
    assert counts.dropped == registry.dropped
    assert counts.lost_leases == registry.lost
    assert counts.handed_back == registry.handed_back
    assert (counts.retries, counts.dead_lettered) == (registry.retries, registry.dead)
    assert subscription.channel.held == registry.kept
    assert (stats.in_flight, sum(stats.wait.counts)) == (0, len(plan))
    assert stats.succeeded == registry.succeeded
    told = ["retrying", "dead_lettered", "dropped"]
    assert [len(hook.named(name)) for name in told] == registry.told
    assert runner.told == (
        [] if is_away else [*registry.acked(made), *registry.rest(pairs)]
    )


class Book:
    """What the plan says must be counted, one by one."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.processed: Counter[Any] = Counter()
        self.exceptions: Counter[str] = Counter()
        self.dropped: Counter[Any] = Counter()
        self.lost: Counter[str] = Counter()
        self.handed_back = self.retries = self.dead = self.kept = self.succeeded = 0
        self.told = [0, 0, 0]
        for outcome, answer, event in plan:
            if answer is Settled.LOST_LEASE:
                self.lost[event] += 1
                self.handed_back += 1
            else:
                self._enter(outcome, answer, event)

    def _enter(self, outcome: Outcome, answer: Settled, event: str) -> None:
        if outcome is ACK:
            self.processed[event, Verdict.SUCCESS] += 1
            self.succeeded += 1
        elif isinstance(outcome, RetryAfter):
            self.retries += 1
            self.told[0] += 1
            self.kept += answer is Settled.KEPT
            self.handed_back += answer is not Settled.KEPT
            if outcome.error is not None:
                self._fail(event, outcome.verdict, outcome.error)
        elif isinstance(outcome, DeadLettered):
            self.dead += 1
            self.told[1] += 1
            self._fail(event, outcome.verdict, outcome.error)
        elif outcome in {EXPIRED, CUT_OFF}:
            self.told[2] += 1
            reason = EXPIRED.reason if outcome == EXPIRED else CUT_OFF.reason
            self.dropped[event, reason] += 1

    def _fail(self, event: str, verdict: Verdict, error: BaseException) -> None:
        self.processed[event, verdict] += 1
        self.exceptions[type(error).__name__] += 1

    def acked(self, made: list[Delivery]) -> list[tuple[Delivery, Outcome]]:
        pairs = zip(made, self.plan, strict=True)
        return [(one, ACK) for one, (outcome, _, _) in pairs if outcome is ACK]

    def rest(
        self, pairs: list[tuple[Delivery, Outcome]]
    ) -> list[tuple[Delivery, Outcome]]:
        return [pair for pair in pairs if pair[1] is not ACK]


def test_counts_come_before_the_room_is_given_back() -> None:
    subscription = subscribe("a.b")
    (one,) = in_work(subscription, ["a.b"])
    seen: list[int] = []
    release = subscription.channel.release

    def look(count: int) -> None:
        seen.append(subscription.stats().succeeded)
        release(count)

    subscription.channel.release = look  # type: ignore[method-assign]
    runner: Any = ConsumerRunner({one: Settled.DONE})

    Settler(subscription, runner).settle(results([(one, ACK)]))

    assert seen == [1]


@pytest.mark.parametrize("outcome", [ACK, DeadLettered(ValueError())], ids=["ok", "no"])
def test_a_server_that_is_away_is_reported_and_costs_no_room(outcome: Outcome) -> None:
    hook = Recorder()
    subscription = subscribe("a.b", hook=hook)
    (one,) = in_work(subscription, ["a.b"])
    runner: Any = ConsumerRunner({}, is_away=True)

    Settler(subscription, runner).settle(results([(one, outcome)]))

    ((part, error),) = hook.named("failed")
    assert (part, type(error)) == ("settle", ConnectionError)
    assert subscription.channel.held == 0
    assert subscription.stats().unaccounted == 0
