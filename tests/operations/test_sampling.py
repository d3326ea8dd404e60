"""What a process samples of its messages: few of them, failures and all consumers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.counts import ConsumerCounts
from django_gomq.bus.delivery import (
    EXPIRED,
    DeadLettered,
    Delivery,
    Outcome,
    RetryAfter,
)
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.worker.settler import Results
from django_gomq.operations import sampling
from django_gomq.operations.samples import (
    FAILURES,
    PER_SECOND,
    RING,
    MessageFilter,
    Sample,
)
from django_gomq.operations.sampling import Sampler

FAILED = DeadLettered(ValueError("no"))
RETRIED = RetryAfter(1.0, ValueError("no"))
POSTPONED = RetryAfter(1.0, None)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Clock:
    """What time it is for the sampler."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(sampling, "Clock", made)
    return made


@pytest.fixture
def sampler(clock: Clock) -> Sampler:
    made = Sampler()
    made.look_for([MessageFilter()])
    return made


def subscription(name: str = "lab.analysis") -> Subscription:
    consumer = make_consumer(["*"], print, name=name, options={})
    counts = ConsumerCounts((), ())
    return Subscription("default", consumer, hooks=Hooks(), counts=counts)


def delivery(event: str = "lab.asked", attempt: int = 1) -> Delivery:
    return Delivery(Message(event, b'{"n": 1}'), Clock.now - 5.0, attempt)


def handled(*events: str) -> Results:
    """Return what came of deliveries that were handled a second each."""
    served = [delivery(event) for event in events]
    times = [Clock.now - number for number in range(len(served), -1, -1)]
    return Results(done=served, served=served, times=times)


def ended(*outcomes: Outcome) -> Results:
    pairs = [(delivery(attempt=2), outcome) for outcome in outcomes]
    return Results(ended=pairs, waits=[1.0], durations=[0.25])


def taken(sampler: Sampler) -> Sequence[Sample]:
    return [one.sample() for one in sampler.take_out()]


def outcomes(sampler: Sampler) -> list[str]:
    return [one.outcome for one in taken(sampler)]


def test_it_takes_so_many_of_each_second(sampler: Sampler, clock: Clock) -> None:
    for _ in range(3):
        sampler.observe(subscription(), handled(*["lab.asked"] * 256))
        sampler.observe(subscription(), handled("lab.asked"))
    assert len(taken(sampler)) == PER_SECOND
    sampler.observe(subscription(), handled("lab.asked"))
    assert taken(sampler) == []  # those of this second were told

    clock.now += 1
    sampler.observe(subscription(), handled("lab.asked"))

    assert len(taken(sampler)) == 1


def test_it_keeps_so_many_where_nobody_takes_them(
    sampler: Sampler, clock: Clock
) -> None:
    for _ in range(RING):
        sampler.look_for([MessageFilter()])
        sampler.observe(subscription(), handled(*["lab.asked"] * PER_SECOND))
        clock.now += 1

    assert len(taken(sampler)) == RING


def test_a_sample_has_the_envelope_and_how_long_it_took(sampler: Sampler) -> None:
    header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    message = Message[Any]("lab.asked", b'"secret"', headers=header)
    one = Delivery(message, Clock.now - 3.0, 2)
    times = [Clock.now - 2.0, Clock.now - 0.5]

    sampler.observe(subscription(), Results(done=[one], served=[one], times=times))

    (found,) = taken(sampler)
    assert (found.event, found.consumer, found.broker) == (
        "lab.asked",
        "lab.analysis",
        "default",
    )
    assert (found.wait, found.duration, found.attempt) == (1.0, 1.5, 2)
    assert (found.message, found.trace) == (message.id, TRACE)
    assert (found.outcome, found.reason) == ("ack", "")
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("outcome", "word", "reason"),
    [
        (FAILED, "dead_letter", "ValueError"),
        (RETRIED, "retry", "ValueError"),
        (POSTPONED, "retry", ""),
        (EXPIRED, "drop", "expired"),
    ],
)
def test_an_outcome_is_a_word_and_the_class_of_its_error(
    sampler: Sampler, outcome: Outcome, word: str, reason: str
) -> None:
    sampler.observe(subscription(), ended(outcome))

    (found,) = taken(sampler)
    assert (found.outcome, found.reason, found.duration) == (word, reason, 0.25)


def test_failures_take_places_of_others_up_to_a_share(sampler: Sampler) -> None:
    sampler.observe(subscription(), handled(*["lab.asked"] * PER_SECOND))

    for _ in range(PER_SECOND):
        sampler.observe(subscription(), ended(FAILED))
        sampler.observe(subscription(), ended(POSTPONED))

    found = outcomes(sampler)
    assert found.count("dead_letter") == FAILURES
    assert found.count("ack") == PER_SECOND - FAILURES


def test_others_have_places_beside_many_failures(sampler: Sampler) -> None:
    sampler.observe(subscription(), ended(*[FAILED] * PER_SECOND))

    for _ in range(PER_SECOND):
        sampler.observe(subscription(), handled("lab.asked"))

    found = outcomes(sampler)
    assert found.count("dead_letter") == FAILURES
    assert found.count("ack") == PER_SECOND - FAILURES


def test_a_quiet_consumer_has_a_place_beside_a_busy_one(sampler: Sampler) -> None:
    sampler.observe(subscription("busy"), handled(*["lab.asked"] * 200))

    sampler.observe(subscription("quiet"), handled("lab.asked"))
    sampler.observe(subscription("other"), handled("lab.asked"))
    sampler.observe(subscription("busy"), handled("lab.asked"))

    names = sorted(one.consumer for one in taken(sampler))
    assert names == ["busy", "busy", "busy", "other", "quiet"]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (MessageFilter("lab.asked"), [("lab.asked", "a"), ("lab.asked", "b")]),
        (MessageFilter("lab.*", "b"), [("lab.asked", "b"), ("lab.ready", "b")]),
        (MessageFilter("health.*"), []),
    ],
)
def test_it_takes_what_somebody_looks_for(
    sampler: Sampler, wanted: MessageFilter, seen: list[tuple[str, str]]
) -> None:
    sampler.look_for([wanted])

    for name in ("a", "b"):
        busy = ["shop.paid"] * 100
        sampler.observe(subscription(name), handled(*busy, "lab.asked", "lab.ready"))

    found = [(one.event, one.consumer) for one in taken(sampler)]
    assert sorted(found)[: len(seen)] == seen
    assert not any(event == "shop.paid" for event, _ in found)


def test_it_stops_by_itself_where_nobody_says_any_more_that_they_look(
    sampler: Sampler, clock: Clock
) -> None:
    clock.now += 16

    sampler.observe(subscription(), handled("lab.asked"))

    assert taken(sampler) == []


def test_what_nobody_looks_for_any_more_is_forgotten(sampler: Sampler) -> None:
    sampler.observe(subscription(), handled("lab.asked"))

    sampler.look_for([])

    assert taken(sampler) == []


def test_data_are_shown_only_of_what_somebody_who_may_looks_for(
    sampler: Sampler,
) -> None:
    sampler.look_for([MessageFilter(), MessageFilter("lab.asked", payload=True)])
    sampler.observe(subscription(), handled("lab.asked", "lab.ready"))

    found = sampler.take_out()

    shown = {one.message.type: sampler.shows_payload_of(one) for one in found}
    assert shown == {"lab.asked": True, "lab.ready": False}


def test_events_without_number_fill_no_memory(sampler: Sampler) -> None:
    for number in range(1_100):
        sampler.observe(subscription(), handled(f"lab.event_{number}"))

    assert len(sampler._wanted) <= 1_000
