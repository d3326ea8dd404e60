"""The law: whatever was taken is handled, dropped, dead, waiting or in work."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import BatchFailed, Reject, RetryLater
from django_gomq.bus.errors import PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.bus.conftest import MakeBroker
from tests.bus.interleaving import HOT, interleaved
from tests.bus.machines import for_long
from tests.bus.stopping import let_stops_wait
from tests.bus.waiting import (
    LONG,
    fast_switching,
    is_settled,
    run_threads,
    wait_until,
    wait_until_settled,
)

SOON = Retry(attempts=3, min_delay=0, max_delay=0.002)
INTERLEAVED = functools.partial(interleaved, *HOT, chance=0.002)


@pytest.fixture(autouse=True, scope="module")
def _soon() -> Iterator[None]:
    """Let ``RetryLater`` come back at once: thousands of runs wait for each."""
    with pytest.MonkeyPatch.context() as patch:
        let_stops_wait(patch)
        patch.setattr("django_gomq.bus.worker.processor.MIN_RETRY_LATER", 0.001)
        yield


def behave(message: Message[Any]) -> None:
    """Do what the body says, as a handler may."""
    match message.data:
        case "ok":
            return
        case "raise":
            raise ValueError
        case "reject":
            raise Reject("no")
        case "later" if message.headers.get("n") is None and random.random() < 0.7:
            raise RetryLater(0.001)
        case "exit":
            raise SystemExit
        case "flaky" if message.attempt < 3:
            raise KeyError


async def abehave(message: Message[Any]) -> None:
    await asyncio.sleep(0)
    behave(message)


def behave_in_batch(messages: list[Message[Any]]) -> None:
    bad = {m.id: ValueError() for m in messages if m.data == "raise"}
    if bad and len(messages) > 1:
        raise BatchFailed(bad)
    for message in messages:
        behave(message)


BODIES = [b'"ok"', b'"raise"', b'"reject"', b'"later"', b'"exit"', b'"flaky"', b"{"]


class LawMachine(RuleBasedStateMachine):
    """Publishers, operators and faults in any order; then all must add up."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(lambda: MemoryBackend(capacity=20, max_delay=9))
        self.accepted: Counter[str] = Counter()

    @initialize()
    def subscribe(self) -> None:
        consume = self.broker.consume
        consume("a.x", behave, name="plain", retry=SOON, capacity=4, concurrency=2)
        consume("a.*", behave, name="oldest", overflow="drop_oldest", capacity=2)
        consume("a.y", behave, name="press", overflow="backpressure", capacity=3)
        consume("b.*", behave_in_batch, name="batch", batch=3, linger=0.001, retry=SOON)
        consume(["b.x", "a.x"], abehave, name="async", retry=SOON, concurrency=3)
        consume("c.x", behave, name="keys", ordered_by_key=True, retry=SOON)
        consume("c.x", abehave, name="akeys", ordered_by_key=True, retry=SOON)

    @rule(
        event=st.sampled_from(["a.x", "a.y", "b.x", "b.y"]),
        body=st.sampled_from(BODIES),
        priority=st.integers(0, 9),
        delay=st.sampled_from([0, 0, 0, 0.002]),
        count=st.integers(1, 12),
    )
    def publish(
        self, event: str, body: bytes, priority: int, delay: float, count: int
    ) -> None:
        for _ in range(count):
            self.hand_over(Message(event, body, priority=priority, delay=delay))

    @rule(
        key=st.sampled_from(["k", "l", None]),
        body=st.sampled_from(BODIES),
        count=st.integers(1, 5),
    )
    def publish_with_key(self, key: str | None, body: bytes, count: int) -> None:
        message = Message("c.x", body, key=key)
        for _ in range(count):
            self.hand_over(message)  # also the same one twice

    def hand_over(self, message: Message[Any]) -> None:
        try:
            self.broker.publish(message)
        except PublishError:
            return
        self.accepted[message.type] += 1

    @rule(name=st.sampled_from(["plain", "oldest", "press", "async", "batch", "keys"]))
    def pause(self, name: str) -> None:
        self.broker.pause(name)

    @rule(
        name=st.sampled_from(["plain", "oldest", "press", "async", "batch"]),
        capacity=st.integers(1, 6),
    )
    def resize(self, name: str, capacity: int) -> None:
        self.broker.resize(name, capacity)

    @rule()
    def resume(self) -> None:
        for consumer in self.broker.consumers:
            self.broker.resume(consumer.name)

    @precondition(lambda self: self.accepted)
    @rule()
    def settle(self) -> None:
        self.resume()
        wait_until_settled(self.broker)
        self.check()

    def check(self) -> None:
        stats = self.broker.stats()
        for event, count in self.accepted.items():
            assert stats.queues[event].published == count
            for consumer in self.broker.consumers:
                if consumer.subscribes_to(event):
                    seen = stats.consumers[consumer.name].dispatched.get(event, 0)
                    assert seen == count
        for one in stats.consumers.values():
            assert one.unaccounted == 0

    def teardown(self) -> None:
        self.broker.close(timeout=0)

        self.check()
        wait_until(self.is_done)  # a busy machine keeps a handler from its end
        self.check()
        for consumer in self.broker.stats().consumers.values():
            assert (consumer.depth, consumer.scheduled) == (0, 0)

    def is_done(self) -> bool:
        numbers = self.broker.stats().consumers.values()
        return all(consumer.in_flight == 0 for consumer in numbers)


LawMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None
)
TestTheLawHoldsWhateverHappens = LawMachine.TestCase
TestTheLawHoldsForLong = for_long(LawMachine)


@pytest.mark.parametrize(
    ("most", "how"),
    [
        pytest.param(800, fast_switching, id="fast switching"),
        pytest.param(200, INTERLEAVED, id="interleaved"),
        pytest.param(
            10_000, fast_switching, id="long, fast switching", marks=pytest.mark.slow
        ),
        pytest.param(2000, INTERLEAVED, id="long, interleaved", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_in_a_busy_bus(  # noqa: C901, PLR0915 - one story
    make_broker: MakeBroker, most: int, how: Callable[[], AbstractContextManager[Any]]
) -> None:
    broker = make_broker(capacity=200, threads=4)
    consume = broker.consume
    for number in range(4):
        consume(f"t{number}.x", behave, name=f"plain{number}", retry=SOON, capacity=50)
    consume("*", behave, name="all", concurrency=4, retry=SOON, overflow="drop_oldest")
    consume("t1.*", behave, name="gate", overflow="backpressure", capacity=20)
    consume("t2.x", behave_in_batch, name="batch", batch=10, linger=0.002, retry=SOON)
    consume("*", abehave, name="async", concurrency=8, retry=SOON, capacity=100)
    consume("k.x", behave, name="keys", ordered_by_key=True, concurrency=3, retry=SOON)
    accepted: Counter[str] = Counter()
    lock, done = threading.Lock(), threading.Event()

    def publish(seed: int) -> None:
        dice, mine = random.Random(seed), Counter[str]()
        for number in range(most):
            body = dice.choice([*BODIES, b'"ok"', b'"ok"', b'"ok"'])
            if dice.random() < 0.3:
                message = Message[Any]("k.x", body, key=f"k{number % 5}")
            else:
                message = Message[Any](
                    f"t{dice.randrange(4)}.x", body, priority=dice.randrange(10)
                )
            try:
                broker.publish(message, timeout=dice.choice([None, 0.001]))
            except PublishError:
                continue
            mine[message.type] += 1
        with lock:
            accepted.update(mine)

    def operate() -> None:
        dice = random.Random(0)
        while not done.wait(0.002):
            name = dice.choice(broker.consumers).name
            dice.choice([broker.pause, broker.resume])(name)
            broker.resize(dice.choice(broker.consumers).name, dice.randint(1, 100))
            broker.stats()

    operator = threading.Thread(target=operate)
    with how():
        broker.start()
        operator.start()
        run_threads(*(functools.partial(publish, seed) for seed in range(4)))
    done.set()
    operator.join()
    for consumer in broker.consumers:
        broker.resume(consumer.name)
    wait_until_settled(broker)

    stats = broker.stats()
    for event, count in accepted.items():
        queue = stats.queues[event]
        assert queue.published == queue.dispatched == count
        for consumer in broker.consumers:
            expected = count if consumer.subscribes_to(event) else 0
            assert stats.consumers[consumer.name].dispatched.get(event, 0) == expected
    life = broker._current_runtime()
    for subscription in life._subscriptions.values():
        assert subscription.channel.held == 0
        # A thread, or a task, that has settled everything is soon back.
        most = subscription.consumer.concurrency
        wait_until(lambda one=subscription, most=most: len(one.free_slots) == most)  # type: ignore[misc]
        assert not subscription.unstarted
        assert subscription.keys is None or not subscription.keys._waiting


def test_published_never_falls_while_the_bus_runs(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=10_000)
    broker.consume("a.b", lambda _: None, name="c", capacity=100_000)
    done, seen = threading.Event(), [0]

    def publish() -> None:
        for _ in range(4000):
            broker.publish(Message("a.b"), timeout=LONG)

    def look() -> None:
        while not done.is_set():
            queue = broker.stats().queues.get("a.b")
            if queue is not None:
                assert queue.published >= seen[0]
                seen[0] = queue.published

    def work() -> None:
        try:
            publish()
        finally:
            done.set()

    with fast_switching():
        run_threads(work, look)


@pytest.mark.parametrize("is_async", [False, True])
def test_order_holds_for_each_key_through_retries(
    make_broker: MakeBroker, *, is_async: bool
) -> None:
    broker = make_broker(capacity=2000)
    handled: dict[str, list[int]] = {}
    inside: Counter[str] = Counter()

    def handle(message: Message[Any]) -> None:
        key = str(message.key)
        inside[key] += 1
        try:
            assert inside[key] == 1, "two of a key at once"
            if random.random() < 0.2 and message.attempt < 9:
                raise ValueError
            handled.setdefault(key, []).append(message.data)
        finally:
            inside[key] -= 1

    async def ahandle(message: Message[Any]) -> None:
        await asyncio.sleep(0)
        handle(message)

    retry = Retry(attempts=9, min_delay=0, max_delay=0.001)
    handler: Callable[[Any], Any] = ahandle if is_async else handle
    broker.consume(
        "a.b", handler, name="c", ordered_by_key=True, concurrency=4, retry=retry
    )

    with fast_switching():
        for number in range(600):
            key = f"k{number % 7}"
            broker.publish(Message("a.b", b"%d" % number, key=key), timeout=LONG)
        wait_until_settled(broker)

    assert sum(map(len, handled.values())) == 600
    for numbers in handled.values():
        assert numbers == sorted(numbers)


def test_a_broker_that_was_never_used_is_settled(broker: Broker) -> None:
    wait_until(lambda: is_settled(broker))
