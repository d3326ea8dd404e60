"""The end of deliveries: whoever has to be told of it, the books agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.backend import Capabilities, Settled, Settlement
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.delivery import (
    ACK,
    CUT_OFF,
    EXPIRED,
    DeadLettered,
    Delivery,
    Dropped,
    Outcome,
    RetryAfter,
    Verdict,
)
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.worker.settler import Conclude, Results, Settler
from tests.bus.observing import Recorder

OUTCOMES: list[Outcome] = [
    ACK,
    ACK,
    ACK,
    RetryAfter(60.0, ValueError()),
    RetryAfter(60.0, TimeoutError(), Verdict.TIMEOUT),
    RetryAfter(60.0, None),
    DeadLettered(KeyError()),
    DeadLettered(KeyError(), Verdict.REJECTED),
    EXPIRED,
    CUT_OFF,
]
Planned = tuple[Outcome, bool, str]
"""How it ended, whether it had been given to somebody else, and its type."""
PLANS = st.lists(
    st.tuples(
        st.sampled_from(OUTCOMES), st.booleans(), st.sampled_from(["a.b", "a.c"])
    ),
    max_size=20,
)


class Server:
    """Answers at once, as it is told, and holds what was not lost."""

    def __init__(self, lost: Iterable[Delivery] = ()) -> None:
        self.lost = set(lost)
        self.told: list[Settlement] = []
        self.let_gone: list[Delivery] = []
        self.exchanged: list[tuple[Delivery, Delivery]] = []

    def add(
        self,
        conclude: Conclude,
        settlements: Sequence[Settlement],
        *,
        is_urgent: bool = False,
    ) -> None:
        self.told += settlements
        if settlements:
            conclude(settlements, [self._answer(settled) for settled in settlements])

    def _answer(self, settled: Settlement) -> Settled:
        is_lost = settled.delivery in self.lost
        return Settled.LOST_LEASE if is_lost else Settled.DONE

    def exchange(self, delivery: Delivery, following: Delivery) -> bool:
        self.exchanged.append((delivery, following))
        return delivery not in self.lost

    def let_go(self, deliveries: Iterable[Delivery]) -> None:
        self.let_gone += deliveries


def subscribe(*types: str, hook: Recorder | None = None, **options: Any) -> Any:
    consumer = make_consumer(list(types), print, name="c", options=options)
    return Subscription("default", consumer, hooks=Hooks([hook] if hook else []))


def in_work(subscription: Subscription, events: list[str]) -> list[Delivery]:
    """Return deliveries of these types that were taken and are in the handler."""
    made = [Delivery(Message(event, key=str(n)), 0.0) for n, event in enumerate(events)]
    for delivery in made:
        subscription.offer([delivery])
    assert len(subscription.take(1000)) == len(made)
    subscription.begin(len(made))
    return made


def results(pairs: Sequence[tuple[Delivery, Outcome]]) -> Results:
    return Results(
        done=[delivery for delivery, outcome in pairs if outcome is ACK],
        ended=[pair for pair in pairs if pair[1] is not ACK],
        waits=[0.5] * len(pairs),
        durations=[0.25] * len(pairs),
        in_flight=len(pairs),
    )


class Book:
    """What must be counted, one by one."""

    def __init__(self, plan: Sequence[Planned], retries_here: bool) -> None:
        self.processed: Counter[Any] = Counter()
        self.exceptions: Counter[str] = Counter()
        self.dropped: Counter[Any] = Counter()
        self.lost: Counter[str] = Counter()
        self.handed_back = self.retries = self.dead = self.kept = 0
        self.reported = {"retrying": 0, "dead_lettered": 0, "dropped": 0}
        self._retries_here = retries_here
        for outcome, is_lost, event in plan:
            # Of what is kept here for its retry the attempt counts all the same.
            if is_lost and not (retries_here and isinstance(outcome, RetryAfter)):
                self.lost[event] += 1
                self.handed_back += 1
            else:
                self._enter(outcome, event, is_lost)

    def _enter(self, outcome: Outcome, event: str, is_lost: bool) -> None:
        match outcome:
            case RetryAfter(_, error, verdict):
                self.retries += 1
                self.reported["retrying"] += 1
                is_kept = self._retries_here and not is_lost
                self.kept += is_kept
                self.handed_back += not is_kept
                if error is not None:
                    self._fail(event, verdict, error)
            case DeadLettered(error, verdict):
                self.dead += 1
                self.reported["dead_lettered"] += 1
                self._fail(event, verdict, error)
            case Dropped(reason):
                self.reported["dropped"] += 1
                self.dropped[event, reason] += 1
            case _:
                self.processed[event, Verdict.SUCCESS] += 1

    def _fail(self, event: str, verdict: Verdict, error: BaseException) -> None:
        self.processed[event, verdict] += 1
        self.exceptions[type(error).__name__] += 1


@given(
    PLANS,
    st.sampled_from([("a.b",), ("a.b", "a.c"), ("a.*",)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_what_is_settled_counts_as_a_naive_book_says(
    plan: list[Planned],
    types: tuple[str, ...],
    has_server: bool,
    delayed_retry: bool,
    dead_letters: bool,
    ordered: bool,
) -> None:
    hook, letters = Recorder(), list[DeadLetter]()
    subscription = subscribe(*types, hook=hook, ordered_by_key=ordered)
    plan = [
        (outcome, is_lost and has_server, "a.b" if types == ("a.b",) else event)
        for outcome, is_lost, event in plan
    ]
    made = in_work(subscription, [event for _, _, event in plan])
    pairs = [(each, outcome) for each, (outcome, _, _) in zip(made, plan, strict=True)]
    server = Server(each for each, (_, lost, _) in zip(made, plan, strict=True) if lost)
    capabilities = Capabilities(
        delayed_retry=has_server and delayed_retry,
        dead_letters=has_server and dead_letters,
    )
    told = {"batcher": server, "holder": server} if has_server else {}

    Settler(subscription, capabilities, keep=letters.append, **told).settle(
        results(pairs)
    )

    book = Book(plan, retries_here=ordered or not capabilities.delayed_retry)
    counts, stats = subscription.counts, subscription.stats()
    assert counts.processed == +book.processed
    assert counts.exceptions == book.exceptions
    assert counts.dropped == book.dropped
    assert counts.lost_leases == book.lost
    assert counts.handed_back == book.handed_back
    assert (counts.retries, counts.dead_lettered) == (book.retries, book.dead)
    assert len(letters) == (0 if capabilities.dead_letters else book.dead)
    assert subscription.channel.held == stats.scheduled == book.kept
    assert (stats.in_flight, stats.depth, stats.unaccounted) == (0, 0, 0)
    assert sum(stats.wait.counts) == len(plan)
    assert {name: len(hook.named(name)) for name in book.reported} == book.reported
    assert len(subscription.busy_keys) == (book.kept if ordered else 0)


def one_in_work(subscription: Subscription) -> Delivery:
    return in_work(subscription, ["a.b"])[0]


def test_counts_come_before_the_room_is_given_back() -> None:
    subscription = subscribe("a.b", capacity=1)
    delivery = one_in_work(subscription)
    seen: list[int] = []
    subscription.channel.call_when_room(
        lambda: seen.append(subscription.stats().succeeded)
    )

    Settler(subscription, Capabilities(), keep=print).settle(results([(delivery, ACK)]))

    assert seen == [1]


def test_permits_come_before_any_observer() -> None:
    class Looking(Recorder):
        def dead_lettered(self, *_: Any) -> None:
            held.append(subscription.channel.held)

    held: list[int] = []
    subscription = subscribe("a.b", hook=Looking())
    ended = [(one_in_work(subscription), DeadLettered(ValueError()))]

    Settler(subscription, Capabilities(), keep=print).settle(results(ended))

    assert held == [0]


def test_a_message_that_was_published_twice_and_fails_twice_is_two_dead_letters() -> (
    None
):
    subscription, letters = subscribe("a.b"), list[DeadLetter]()
    message: Any = Message("a.b")  # its own first delivery, in memory
    subscription.offer([message, message])
    subscription.take(2)
    subscription.begin(2)

    Settler(subscription, Capabilities(), keep=letters.append).settle(
        results([(message, DeadLettered(ValueError()))] * 2)
    )

    assert [letter.message for letter in letters] == [message, message]
    assert letters[0].id != letters[1].id


# ------------------------------------------------------------------ with a server


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.parametrize("error", [ValueError(), None], ids=["failed", "asked"])
def test_a_retry_that_waits_here_is_held_in_the_place_of_its_first_attempt(
    server: Server, error: Exception | None
) -> None:
    subscription = subscribe("a.b")
    message: Message[Any] = Message("a.b")
    delivery = Delivery(message, 0.0, 2, "token", 7)
    subscription.accept([delivery])
    subscription.take(1)
    subscription.begin(1)
    settler = Settler(
        subscription, Capabilities(), keep=print, batcher=server, holder=server
    )

    settler.settle(results([(delivery, RetryAfter(60, error))]))

    ((before, following),) = server.exchanged
    assert before is delivery
    assert (following.message, following.token) == (message, "token")
    # A RetryLater is no failed attempt.
    assert (following.attempt, following.deliveries) == (2 + (error is not None), 7)
    assert server.told == []


def test_until_the_server_answers_a_delivery_is_in_flight_and_keeps_room_and_key() -> (
    None
):
    class Slow(Server):
        later: Callable[[], None]

        def add(
            self,
            conclude: Conclude,
            settlements: Sequence[Settlement],
            *,
            is_urgent: bool = False,
        ) -> None:
            self.later = partial(super().add, conclude, settlements)

    server = Slow()
    subscription = subscribe("a.b", ordered_by_key=True)
    delivery = one_in_work(subscription)
    settler = Settler(
        subscription, Capabilities(), keep=print, batcher=server, holder=server
    )

    settler.settle(results([(delivery, ACK)]))
    before = subscription.stats()
    busy = subscription.busy_keys
    server.later()

    assert (before.in_flight, before.depth, before.succeeded) == (1, 0, 0)
    assert busy == {"0"}
    assert subscription.stats().succeeded == 1
    assert (subscription.channel.held, subscription.busy_keys) == (0, frozenset())
    assert server.let_gone == [delivery]


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_is_given_up_unstarted_is_a_dead_letter_and_touches_no_key(
    is_lost: bool,
) -> None:
    letters: list[DeadLetter] = []
    subscription = subscribe("a.b", ordered_by_key=True, capacity=1)
    in_work(subscription, ["a.b"])
    unstarted = Delivery(Message("a.b", key="0"), 0.0)
    server = Server([unstarted] if is_lost else [])
    settler = Settler(
        subscription,
        Capabilities(),
        keep=letters.append,
        batcher=server,
        holder=server,
    )

    settler.give_up(unstarted, ValueError("too often"))

    stats = subscription.stats()
    assert [letter.error for letter in letters] == (
        [] if is_lost else ["ValueError: too often"]
    )
    assert (stats.dead_lettered, stats.handed_back) == (not is_lost, is_lost)
    assert (stats.in_flight, stats.depth, stats.unaccounted) == (1, 0, 0)
    assert subscription.channel.held == 1
    assert subscription.busy_keys == {"0"}
