"""A whole broker under load: every message counted, in a normal run and in a long one.

``GOMQ_FUZZ_MESSAGES=10_000_000 pytest tests/bus/test_load.py -m slow`` is as long as
one likes.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import (
    BatchFailed,
    DropReason,
    Reject,
    RetryLater,
    Verdict,
)
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import QueueStats
from tests.bus.conftest import MakeBroker
from tests.bus.interleaving import HOT, interleaved
from tests.bus.stopping import let_stops_wait
from tests.bus.waiting import (
    LONG,
    fast_switching,
    run_threads,
    wait_until,
    wait_until_settled,
)

USUAL: Final = 10_000
MANY: Final = int(os.environ.get("GOMQ_FUZZ_MESSAGES", "1_000_000"))
TIMEOUT: Final = 240 + MANY / 1000  # seconds, on the slowest machine there is
PUBLISHERS: Final = 4
SOON: Final = Retry(attempts=3, min_delay=0, max_delay=0.001)
TYPES: Final = ("load.one", "load.two")
INTERLEAVED: Final = functools.partial(interleaved, *HOT, chance=0.001)


class Load:
    """Numbered messages, and who handled which of them how often."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.share = -(-count // PUBLISHERS)
        self.done = {
            name: bytearray(count) for name in ("plain", "flaky", "batch", "drops")
        }
        """By consumer, how often each message succeeded."""
        self.attempts = bytearray(count)
        """Of the flaky one."""
        self.latest: dict[tuple[str, int, int], int] = {}
        """Of the single thread: its latest message by type, publisher and priority."""
        self.single = 0
        self.out_of_order: list[int] = []
        self.sent: Counter[str] = Counter()
        self._lock = threading.Lock()

    def numbers_of(self, publisher: int) -> Iterator[int]:
        """Return the numbers that a publisher sends; they grow."""
        first = publisher * self.share
        return iter(range(first, min(first + self.share, self.count)))

    def event_of(self, number: int) -> str:
        return TYPES[number % 7 == 0]

    def priority_of(self, number: int) -> int:
        return (5, 5, 5, 0, 9, 3)[number // 64 % 6]

    def make(self, number: int) -> Message[Any]:
        return Message(
            self.event_of(number), b"%d" % number, priority=self.priority_of(number)
        )

    def publish(self, broker: Broker, publisher: int) -> None:
        """Publish singly and in runs, waiting for room."""
        dice = random.Random(publisher)
        numbers, sent = self.numbers_of(publisher), Counter[str]()
        for number in numbers:
            size = dice.choice((1, 1, 1, 1, 2, 50))
            if size == 1:
                message = self.make(number)
                broker.publish(message, timeout=TIMEOUT)
                sent[message.type] += 1
                continue
            run = itertools.chain([number], itertools.islice(numbers, size - 1))
            many = [self.make(one) for one in run]
            answers = broker.publish_many(many, timeout=TIMEOUT)
            assert not any(answers), "refused, though there was time"
            sent.update(message.type for message in many)
        with self._lock:
            self.sent.update(sent)

    # What is asked of the consumers.

    def is_late(self, number: int) -> bool:
        return number % 211 == 0

    def is_flaky(self, number: int) -> bool:
        return number % 97 == 0

    def is_bad(self, number: int) -> bool:
        return number % 101 == 0

    def handle_plainly(self, message: Message[Any]) -> None:
        self.done["plain"][int(message.body)] += 1

    def handle_flakily(self, message: Message[Any]) -> None:
        number = int(message.body)
        self.attempts[number] += 1
        if self.is_bad(number):
            raise Reject("bad")
        if self.is_flaky(number) and message.attempt < 3:
            raise ValueError
        if self.is_late(number) and self.attempts[number] < 2:
            raise RetryLater(0.001)
        self.done["flaky"][number] += 1

    def handle_singly(self, message: Message[Any]) -> None:
        number = int(message.body)
        place = message.type, number // self.share, message.priority
        if number <= self.latest.get(place, -1):
            self.out_of_order.append(number)
        self.latest[place] = number
        self.single += 1

    def handle_batch(self, messages: list[Message[Any]]) -> None:
        done = self.done["batch"]
        errors: dict[str, BaseException] = {}
        for message in messages:
            number = int(message.body)
            if self.is_bad(number):
                errors[message.id] = ValueError(number)
            else:
                done[number] += 1
        if errors:
            raise BatchFailed(errors)

    def handle_some(self, message: Message[Any]) -> None:
        self.done["drops"][int(message.body)] += 1

    def subscribe(self, broker: Broker) -> None:
        consume = functools.partial(broker.consume, overflow="backpressure")
        consume(TYPES, self.handle_plainly, name="plain", concurrency=4)
        consume("load.*", self.handle_flakily, name="flaky", concurrency=4, retry=SOON)
        consume(TYPES, self.handle_singly, name="single")
        consume("*", self.handle_batch, name="batch", concurrency=4, batch=20)
        broker.consume(
            TYPES,
            self.handle_some,
            name="drops",
            concurrency=4,
            overflow="drop_oldest",
            capacity=100,
        )

    # What must have become of them.

    def check(self, broker: Broker) -> None:
        stats = broker.stats()
        sent = Counter(self.event_of(number) for number in range(self.count))
        assert self.sent == sent
        for event in TYPES:
            queue = stats.queues[event]
            assert (queue.published, queue.dispatched) == (sent[event], sent[event])
            assert (queue.depth, queue.delayed, queue.refused) == (0, 0, {})
        for one in stats.consumers.values():
            assert one.dispatched == sent
            assert (one.unaccounted, one.depth, one.scheduled) == (0, 0, 0)
            assert (one.in_flight, one.handed_back) == (0, 0)
            assert sum(one.duration.counts) >= sum(one.wait.counts) / 20
        self._check_exact(broker)
        self._check_dropped(broker)
        self._check_rest(broker)

    def _count(self, *conditions: Any) -> int:
        """Return for how many numbers the first of these holds, and no other."""
        wanted, *others = conditions
        return sum(
            wanted(number) and not any(other(number) for other in others)
            for number in range(self.count)
        )

    def _check_exact(self, broker: Broker) -> None:
        consumers = broker.stats().consumers
        bad = self._count(self.is_bad)
        good = self.count - bad
        flaky = self._count(self.is_flaky, self.is_bad)
        late = self._count(self.is_late, self.is_flaky, self.is_bad)
        assert self.done["plain"] == b"\1" * self.count
        for name in ("flaky", "batch"):
            expected = bytes(not self.is_bad(number) for number in range(self.count))
            assert self.done[name] == expected
            assert (consumers[name].succeeded, consumers[name].dead_lettered) == (
                good,
                bad,
            )
        assert (consumers["plain"].succeeded, consumers["plain"].retries) == (
            self.count,
            0,
        )
        assert (self.single, self.out_of_order) == (self.count, [])
        assert consumers["flaky"].retries == 2 * flaky + late
        assert consumers["flaky"].exceptions == {"Reject": bad, "ValueError": 2 * flaky}
        attempts = sum(self.attempts)
        assert attempts == self.count + 2 * flaky + late
        for name, times in (("plain", self.count), ("flaky", attempts)):
            assert sum(consumers[name].duration.counts) == times
            assert sum(consumers[name].wait.counts) == times
        assert sum(consumers["batch"].wait.counts) == self.count

    def _check_dropped(self, broker: Broker) -> None:
        one = broker.stats().consumers["drops"]
        handled = self.done["drops"]
        dropped = sum(one.dropped.values())
        assert set(handled) <= {0, 1}
        assert sum(handled) == one.succeeded == self.count - dropped
        assert {reason for _, reason in one.dropped} <= {
            DropReason.EVICTED,
            DropReason.CHANNEL_FULL,
        }
        verdicts = {verdict for _, verdict in one.processed}
        assert verdicts == {Verdict.SUCCESS}

    def _check_rest(self, broker: Broker) -> None:
        """Nothing is left anywhere."""
        life: Any = broker._current_runtime()
        for one in life._subscriptions.values():
            assert (one.channel.held, len(one.channel)) == (0, 0)
            assert one.channel.room == one.channel.capacity
            # A thread that has settled everything is soon back.
            wait_until(
                lambda one=one: len(one.free_slots) == one.consumer.concurrency  # type: ignore[misc]
            )
            assert not one.unstarted
        for queue in life.backend._queues.all():
            assert (queue.held, queue.room) == (0, queue.capacity)
            assert queue.reconcile(patience=0) == 0


@pytest.mark.parametrize(
    ("count", "how"),
    [
        pytest.param(USUAL, nullcontext, id="much"),
        pytest.param(1000, fast_switching, id="fast switching"),
        pytest.param(1000, INTERLEAVED, id="interleaved"),
        pytest.param(
            20_000, INTERLEAVED, id="long, interleaved", marks=pytest.mark.slow
        ),
        pytest.param(
            MANY,
            nullcontext,
            id="very much",
            marks=[pytest.mark.slow, pytest.mark.timeout(3 * TIMEOUT)],
        ),
    ],
)
def test_of_many_messages_none_is_lost_doubled_or_miscounted(
    make_broker: MakeBroker, count: int, how: Callable[[], AbstractContextManager[Any]]
) -> None:
    load, broker = Load(count), make_broker(threads=4)
    load.subscribe(broker)

    with how():
        broker.start()
        # What is missed stays missed: nobody looks everywhere now and then.
        backend: Any = broker._current_runtime().backend
        backend._timers.cancel(backend._dispatcher.look_everywhere)
        run_threads(
            *(functools.partial(load.publish, broker, n) for n in range(PUBLISHERS)),
            seconds=TIMEOUT,
        )
        wait_until_settled(broker, TIMEOUT)

    load.check(broker)


@pytest.mark.parametrize("close_after", [0, 100, 3000])
def test_what_a_close_in_full_load_leaves_is_counted(  # noqa: C901 - one race
    make_broker: MakeBroker, close_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_stops_wait(monkeypatch)
    broker, accepted = make_broker(threads=4), Counter[str]()
    handled, lock = [0], threading.Lock()
    closing = threading.Event()

    def handle(message: Message[Any]) -> None:
        with lock:
            handled[0] += 1
            if handled[0] == close_after:
                closing.set()

    for number in range(5):
        broker.consume("a.*", handle, name=f"c{number}", concurrency=4)
    broker.start()
    if not close_after:
        closing.set()

    def publish() -> None:
        mine: Counter[str] = Counter()
        while not broker.is_closed:
            many = [Message[Any](f"a.t{number % 3}") for number in range(20)]
            for message, answer in zip(many, broker.publish_many(many), strict=True):
                mine[message.type] += answer is None
        with lock:
            accepted.update(mine)

    def close() -> None:
        closing.wait(LONG)
        broker.close(timeout=0)

    run_threads(*[publish] * 4, close)

    stats = broker.stats()
    for event in ("a.t0", "a.t1", "a.t2"):
        queue = stats.queues.get(event, QueueStats())
        assert (queue.published, queue.depth) == (accepted[event], 0)
    for one in stats.consumers.values():
        assert +Counter(one.dispatched) == +accepted
        assert (one.unaccounted, one.depth, one.in_flight) == (0, 0, 0)
    assert sum(one.succeeded for one in stats.consumers.values()) == handled[0]
