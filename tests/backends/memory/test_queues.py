"""Who subscribes to an event type, whatever consumers name and whenever they join."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.backends.memory import queues as module
from django_gomq.backends.memory.queues import SubscriptionIndex
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.hooks import Hooks
from tests.bus.interleaving import interleaved
from tests.bus.waiting import run_threads

EVENTS = ["a", "b", "a.b", "a.bc", "a.b.c", "a.b.c.d", "ab", "ab.c", "b.a"]
TYPES = [*EVENTS, "*", "a.*", "a.b.*", "a.b.c.*", "ab.*", "b.*"]


def subscribe(*types: str, name: str = "c") -> Subscription:
    consumer = make_consumer(types, print, name=name, options={})
    return Subscription("default", consumer, hooks=Hooks())


@given(
    st.lists(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4), max_size=6),
    st.lists(st.sampled_from(EVENTS), max_size=4),
)
@settings(deadline=None)
def test_they_are_found_as_each_consumer_would_say_itself(
    joining: list[list[str]], asked_before: list[str]
) -> None:
    subscribers = SubscriptionIndex()
    made = [subscribe(*types) for types in joining]

    for one in made:
        for event in asked_before:
            subscribers.match(event)  # an answer that is soon out of date
        subscribers.add(one)

    assert subscribers.all == tuple(made)
    for event in EVENTS:
        expected = [one for one in made if one.consumer.subscribes_to(event)]
        assert list(subscribers.match(event)) == expected


def test_before_anybody_joins_nobody_is_found() -> None:
    assert SubscriptionIndex().match("a.b") == ()


def test_who_joined_is_found_by_every_thread_that_asks_afterwards() -> None:
    subscribers = SubscriptionIndex()
    made = [subscribe("a.b", "a.*") for _ in range(30)]
    joined = [0]

    def join() -> None:
        for one in made:
            subscribers.add(one)
            joined[0] += 1

    def ask(event: str) -> None:
        while joined[0] < len(made):
            least = joined[0]
            found = list(subscribers.match(event))
            assert len(found) >= least, "an answer of before is remembered"
            assert found == made[: len(found)]

    with interleaved(module):
        run_threads(join, *(functools.partial(ask, one) for one in ("a.b", "a.c")))

    assert subscribers.match("a.b") == subscribers.match("a.c") == tuple(made)
