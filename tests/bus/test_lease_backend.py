from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import RetryLater, Verdict
from django_gomq.bus.errors import (
    BackendUnavailableError,
    BrokerClosedError,
    NoConsumerError,
)
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import ConsumerStats
from tests.bus.fake_lease import LeaseBackend
from tests.bus.fake_lease_store import LeaseStore
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


class Process:
    """One process of a site: a broker with a backend of its own."""

    def __init__(self, store: LeaseStore, hook: Hook | None = None) -> None:
        self.store = store
        self.backend = LeaseBackend(store)
        self.broker = Broker(
            lambda: self.backend,
            hooks=[hook] if hook else [],
        )

    def consume(self, handler: Any, **options: Any) -> None:
        self.broker.consume("a.*", handler, name="c", **options)
        self.broker.start()

    def stall(self) -> None:
        """Neither fetch nor keep leases, as a process that is cut off."""
        self.backend.keeps_leases = False
        self.broker.pause("c")

    @property
    def subscription(self) -> Subscription:
        return self.broker._current_runtime().subscription("c")

    @property
    def held(self) -> int:
        return self.subscription.channel.held

    @property
    def stats(self) -> ConsumerStats:
        return self.broker.stats().consumers["c"]

    @property
    def lost(self) -> Counter[str]:
        return self.subscription.counts.lost_leases


class Stuck:
    """A handler that goes on when it is told."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.handled: list[tuple[Any, int]] = []

    def handle(self, message: Message[Any]) -> None:
        self.inside.release()
        self.go_on.wait(20)
        self.handled.append((message.data, message.attempt))


class Notes:
    """A handler that notes what it is given."""

    def __init__(self) -> None:
        self.handled: list[tuple[Any, int]] = []

    def handle(self, message: Message[Any]) -> None:
        self.handled.append((message.data, message.attempt))


MakeProcess = Callable[..., Process]


@pytest.fixture
def store() -> LeaseStore:
    return LeaseStore(lease=30.0)


@pytest.fixture
def start(store: LeaseStore) -> Iterator[MakeProcess]:
    processes: list[Process] = []

    def make(*, hook: Hook | None = None) -> Process:
        process = Process(store, hook)
        processes.append(process)
        return process

    yield make
    store.is_away = False
    for process in processes:
        process.broker.close(timeout=0)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    handler = Stuck()
    yield handler
    handler.go_on.set()


def has_grown(seen: Sequence[Any], beyond: int) -> bool:
    return len(seen) > beyond


@pytest.fixture
def slow() -> Iterator[Stuck]:
    handler = Stuck()
    yield handler
    handler.go_on.set()


def send(process: Process, *numbers: int, **options: Any) -> None:
    for number in numbers:
        process.broker.publish(Message("a.b", b"%d" % number, **options))


# ------------------------------------------------------------ who gets what


def test_two_processes_share_the_messages_of_a_consumer(
    start: MakeProcess, store: LeaseStore
) -> None:
    one, two, notes = start(), start(), Notes()
    one.consume(notes, capacity=5)
    two.consume(notes, capacity=5)

    send(one, *range(200))

    wait_until(lambda: not store.rows)
    wait_until_settled(one.broker)
    wait_until_settled(two.broker)
    assert sorted(notes.handled) == [(number, 1) for number in range(200)]
    assert one.stats.succeeded + two.stats.succeeded == 200


def test_each_consumer_gets_each_message_once(
    start: MakeProcess, store: LeaseStore
) -> None:
    process, notes, others = start(), Notes(), Notes()
    process.consume(notes)
    process.broker.consume(["a.b"], others, name="d")

    send(process, *range(50))

    wait_until(lambda: not store.rows)
    assert sorted(notes.handled) == sorted(others.handled)
    assert len(notes.handled) == 50


def test_what_nobody_consumes_is_refused(start: MakeProcess) -> None:
    process = start()
    process.consume(print)

    with pytest.raises(NoConsumerError):
        process.broker.publish(Message("b.c"))

    assert process.broker.stats().queues["b.c"].unconsumed == 1


def test_a_reader_never_takes_more_than_its_channel_holds(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    process = start()
    process.consume(stuck, capacity=3)
    send(process, *range(20))
    wait_until(lambda: process.held == 3)

    for _ in range(5):  # the reader looks again
        seen = len(process.backend.calls)
        wait_until(partial(has_grown, process.backend.calls, seen))

    owned = [row for row in store.rows.values() if row.owner]
    assert len(owned) == 3
    assert process.stats.dispatched == {"a.b": 3}
    stuck.go_on.set()
    wait_until(lambda: len(stuck.handled) == 20)


def test_what_a_shrunk_channel_cannot_hold_goes_back_uncounted(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two, notes = start(), start(), Notes()
    claim = store.claim

    def shrink_meanwhile(consumer: str, owner: str, most: int) -> Any:
        one.broker.resize("c", 2)
        return claim(consumer, owner, most)

    one.broker.consume("a.*", stuck, name="c", capacity=10)
    one.broker.pause("c")
    send(one, *range(10))
    store.claim = shrink_meanwhile  # type: ignore[method-assign]
    one.broker.resume("c")
    wait_until(lambda: one.held == 2)
    store.claim = claim  # type: ignore[method-assign]

    two.consume(notes)

    wait_until(lambda: len(notes.handled) == 8)
    assert {attempt for _, attempt in notes.handled} == {1}
    assert one.stats.dispatched == {"a.b": 2}


def test_a_paused_consumer_leaves_messages_to_other_processes(
    start: MakeProcess,
) -> None:
    one, two, notes = start(), start(), Notes()
    one.consume(print)
    one.broker.pause("c")
    two.consume(notes)

    send(one, *range(20))

    wait_until(lambda: len(notes.handled) == 20)
    assert one.stats.dispatched == {}


def test_higher_priorities_are_started_first(start: MakeProcess) -> None:
    process, notes = start(), Notes()
    process.broker.consume("a.*", notes, name="c")
    process.broker.pause("c")
    process.broker.start()
    for number, priority in enumerate((1, 9, 5, 9)):
        send(process, number, priority=priority)

    process.broker.resume("c")

    wait_until(lambda: len(notes.handled) == 4)
    assert [number for number, _ in notes.handled] == [1, 3, 2, 0]


def test_a_delayed_message_comes_when_the_stores_clock_says_so(
    start: MakeProcess, store: LeaseStore
) -> None:
    process, notes = start(), Notes()
    process.consume(notes)
    send(process, 1, delay=60)
    send(process, 2)
    wait_until(lambda: notes.handled == [(2, 1)])

    store.clock.advance(60)

    wait_until(lambda: notes.handled == [(2, 1), (1, 1)])


# ------------------------------------------------------------ retries


def test_a_handler_that_raises_is_tried_again_and_given_up_in_the_store(
    start: MakeProcess, store: LeaseStore
) -> None:
    recorder = Recorder()
    process = start(hook=recorder)
    attempts: list[int] = []

    def fail(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        raise ValueError(message.attempt)

    process.consume(fail, retry=Retry(attempts=3, min_delay=10, jitter=False))
    send(process, 1)
    for number in (1, 2):
        wait_until(partial(has_grown, attempts, number - 1))
        wait_until(lambda: process.held == 0)  # the store has it
        assert process.stats.retries == attempts[-1] == number
        store.clock.advance(20)

    wait_until(process.broker.dead_letters)
    wait_until_settled(process.broker)
    letter = process.broker.dead_letters()[0]
    stats = process.stats
    assert attempts == [1, 2, 3]
    assert (letter.consumer, letter.attempt, letter.error) == ("c", 3, "ValueError: 3")
    assert not store.rows
    assert (stats.retries, stats.handed_back, stats.dead_lettered) == (2, 2, 1)
    assert stats.processed == {("a.b", Verdict.ERROR): 3}
    assert process.broker.hooks.flush(LONG)
    assert [attempt for _, attempt, _ in recorder.named("retrying")] == [1, 2]
    assert len(recorder.named("dead_lettered")) == 1


def test_a_retry_may_run_in_another_process(
    start: MakeProcess, store: LeaseStore
) -> None:
    one, two, notes = start(), start(), Notes()

    def fail(message: Message[Any]) -> None:
        raise ValueError

    one.consume(fail, retry=Retry(min_delay=10, jitter=False))
    send(one, 1)
    wait_until(lambda: one.stats.retries == 1)
    one.broker.pause("c")
    two.consume(notes)

    store.clock.advance(10)

    wait_until(lambda: notes.handled == [(1, 2)])


def test_a_handler_that_asks_for_later_spends_no_attempt(
    start: MakeProcess, store: LeaseStore
) -> None:
    process = start()
    attempts: list[int] = []

    def ask(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if len(attempts) < 3:
            raise RetryLater(0)

    process.consume(ask)
    send(process, 1)

    wait_until(lambda: store.finished)
    assert attempts == [1, 1, 1]


def test_a_message_that_kills_its_processes_ends_in_the_store(
    start: MakeProcess,
) -> None:
    store = LeaseStore(lease=30.0, max_claims=3)
    process = Process(store)
    process.consume(print)
    process.broker.pause("c")
    send(process, 1)
    for _ in range(3):
        assert store.claim("c", "a process that dies", 1)
        store.clock.advance(31)

    assert store.claim("c", "the next", 1) == []

    assert [letter.attempt for letter in process.broker.dead_letters()] == [3]
    process.broker.close(timeout=0)


# ------------------------------------------------------------ leases


def test_a_lost_lease_counts_for_nothing(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two, notes = start(), start(), Notes()
    one.consume(stuck)
    send(one, 1)
    stuck.inside.acquire(timeout=5)
    one.stall()
    store.clock.advance(31)
    two.consume(notes)
    wait_until(lambda: two.stats.succeeded == 1)

    stuck.go_on.set()

    wait_until_settled(one.broker)
    assert notes.handled == [(1, 2)]
    assert stuck.handled == [(1, 1)]
    assert one.lost == {"a.b": 1}
    assert (one.stats.succeeded, one.stats.handed_back) == (0, 1)
    assert one.stats.last_success is None
    assert len(store.finished) == 1
    assert one.held == two.held == 0


def test_a_late_failure_of_a_lost_lease_is_neither_retried_nor_buried(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    recorder = Recorder()
    one, two, notes = start(hook=recorder), start(), Notes()

    def fail_late(message: Message[Any]) -> None:
        stuck.handle(message)
        raise ValueError

    one.consume(fail_late)
    send(one, 1)
    stuck.inside.acquire(timeout=5)
    one.stall()
    store.clock.advance(31)
    two.consume(notes)
    wait_until(lambda: two.stats.succeeded == 1)

    stuck.go_on.set()

    wait_until_settled(one.broker)
    assert one.lost == {"a.b": 1}
    assert (one.stats.dead_lettered, store.dead) == (0, [])
    assert recorder.named("dead_lettered") == []
    assert one.stats.exceptions == {}
    assert one.held == 0


def test_a_late_end_does_not_end_the_run_of_another_process(
    start: MakeProcess, store: LeaseStore, stuck: Stuck, slow: Stuck
) -> None:
    one, two = start(), start()
    one.consume(stuck)
    send(one, 1)
    stuck.inside.acquire(timeout=5)
    one.stall()
    store.clock.advance(31)
    two.consume(slow)
    slow.inside.acquire(timeout=5)

    stuck.go_on.set()
    wait_until(lambda: one.lost == {"a.b": 1})

    assert (len(store.rows), store.finished) == (1, [])
    slow.go_on.set()
    wait_until(lambda: two.stats.succeeded == 1)
    assert slow.handled == [(1, 2)]
    assert two.lost == {}


def test_a_late_end_does_not_end_a_later_attempt_of_the_same_process(
    start: MakeProcess, store: LeaseStore
) -> None:
    process = start()
    gates = {1: threading.Event(), 2: threading.Event()}
    entered: list[int] = []

    def handle(message: Message[Any]) -> None:
        entered.append(message.attempt)
        gates[message.attempt].wait(20)

    process.consume(handle, concurrency=2)
    process.backend.keeps_leases = False
    send(process, 1)
    wait_until(lambda: entered == [1])
    store.clock.advance(31)
    wait_until(lambda: entered == [1, 2])

    gates[1].set()
    wait_until(lambda: process.lost == {"a.b": 1})

    assert (len(store.rows), process.stats.succeeded) == (1, 0)
    gates[2].set()
    wait_until(lambda: process.stats.succeeded == 1)
    wait_until_settled(process.broker)
    assert process.held == 0


def test_waiting_messages_whose_leases_are_lost_are_taken_away(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two, notes = start(), start(), Notes()
    one.consume(stuck)
    send(one, *range(5))
    stuck.inside.acquire(timeout=5)
    wait_until(lambda: one.held == 5)
    one.stall()
    store.clock.advance(31)
    two.consume(notes)
    wait_until(lambda: len(notes.handled) == 5)

    one.backend.keeps_leases = True  # it looks again

    wait_until(lambda: one.stats.depth == 0)
    assert (one.held, one.stats.handed_back) == (1, 4)
    stuck.go_on.set()
    wait_until_settled(one.broker)
    assert stuck.handled == [(0, 1)]
    assert sorted(notes.handled) == [(number, 2) for number in range(5)]
    assert one.held == 0


def test_a_slow_handler_keeps_its_lease(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two = start(), start()
    one.consume(stuck)
    send(one, 1)
    stuck.inside.acquire(timeout=5)
    two.consume(print)
    (row,) = store.rows.values()

    for _ in range(4):
        store.clock.advance(20)
        wait_until(lambda: row.lease_until == store.clock.now + store.lease)

    stuck.go_on.set()
    wait_until(lambda: one.stats.succeeded == 1)
    assert stuck.handled == [(1, 1)]
    assert two.stats.dispatched == {}
    assert one.lost == {}


# ------------------------------------------------------------ the stop


def test_a_close_gives_unstarted_messages_to_the_other_process_uncounted(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two, notes = start(), start(), Notes()
    one.consume(stuck)
    send(one, *range(5))
    stuck.inside.acquire(timeout=5)
    wait_until(lambda: one.held == 5)

    remainder = one.broker.close(timeout=0.01)
    two.consume(notes)

    wait_until(lambda: len(notes.handled) == 4)
    assert sorted(notes.handled) == [(number, 1) for number in range(1, 5)]
    assert (remainder.dropped, remainder.in_flight) == ({}, 1)
    assert (one.stats.handed_back, one.stats.depth) == (4, 0)
    assert one.stats.unaccounted == 0


def test_what_a_thread_holds_in_its_hands_is_given_back_too(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two, notes = start(), start(), Notes()
    stuck.go_on.set()
    one.consume(stuck)
    send(one, *range(100))
    wait_until(lambda: len(stuck.handled) == 100)  # a fast handler
    wait_until_settled(one.broker)
    stuck.go_on.clear()
    one.subscription.free_slots.clear()  # no thread takes until all is there
    send(one, *range(100, 150))
    wait_until(lambda: one.held == 50)
    one.subscription.free_slots.append(None)
    one.subscription.notify()
    wait_until(lambda: one.stats.in_flight == 1)
    assert any(one.subscription.unstarted.values())

    one.broker.close(timeout=0.01)
    two.consume(notes)

    wait_until(lambda: len(notes.handled) == 49)
    assert {attempt for _, attempt in notes.handled} == {1}


def test_a_handler_that_outlives_the_stop_leaves_its_message_to_the_other_process(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    one, two, notes = start(), start(), Notes()
    one.consume(stuck)
    send(one, 1)
    stuck.inside.acquire(timeout=5)
    one.broker.close(timeout=0.01)
    two.consume(notes)

    stuck.go_on.set()
    wait_until(lambda: one.stats.in_flight == 0)
    store.clock.advance(31)

    wait_until(lambda: notes.handled == [(1, 2)])
    wait_until(lambda: one.held == 0)
    assert one.lost == {"a.b": 1}
    assert one.stats.unaccounted == 0


def test_a_close_finishes_what_was_fetched_and_fetches_no_more(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    process = start()
    process.consume(stuck, capacity=4)
    send(process, *range(10))
    wait_until(lambda: process.held == 4)
    closing = threading.Thread(target=process.broker.close)
    closing.start()
    wait_until(lambda: "stop_publishing" in process.backend.calls)

    with pytest.raises(BrokerClosedError):
        send(process, 10)
    stuck.go_on.set()
    closing.join(5)

    # One fetch may have been under way when the stop came.
    assert len(stuck.handled) in range(4, 9)
    assert [row.attempt for row in store.rows.values()] == [0] * (
        10 - len(stuck.handled)
    )
    assert process.held == 0


def test_a_close_goes_on_in_the_right_order(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    process = start()
    process.consume(stuck)
    send(process, 1, 2)
    stuck.inside.acquire(timeout=5)
    wait_until(lambda: process.held == 2)

    process.broker.close(timeout=0.1)

    calls = process.backend.calls
    first, last = calls.index("stop_publishing"), calls.index("stop_reading")
    assert "extend" in calls[first:last]  # while it drains
    # Leases are kept to the last: a heartbeat may come in between.
    steps = [one for one in calls[last:] if one != "extend"]
    assert steps == ["stop_reading", "release", "close"]
    assert calls[-1] == "close"
    assert not process.backend.is_reading


def test_a_close_ends_though_the_store_is_away(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    recorder = Recorder()
    process = start(hook=recorder)
    process.consume(stuck)
    send(process, 1, 2)
    stuck.inside.acquire(timeout=5)
    wait_until(lambda: process.held == 2)
    store.is_away = True

    remainder = process.broker.close(timeout=0.01)

    assert remainder.in_flight == 1
    assert process.backend.calls[-1] == "close"
    assert "stop" in [part for part, _ in recorder.named("failed")]
    assert recorder.named("stopped") == [remainder]


# ------------------------------------------------------------ a store that goes away


def test_an_outcome_that_the_store_never_heard_of_comes_again(
    start: MakeProcess, store: LeaseStore, stuck: Stuck
) -> None:
    process = start()
    process.consume(stuck)
    send(process, 1)
    stuck.inside.acquire(timeout=5)
    store.is_away = True
    stuck.go_on.set()
    wait_until(lambda: process.lost)
    assert process.held == 0

    store.is_away = False
    store.clock.advance(31)

    wait_until(lambda: stuck.handled == [(1, 1), (1, 2)])
    wait_until(lambda: process.stats.succeeded == 1)


def test_a_publisher_is_told_that_the_store_is_away(
    start: MakeProcess, store: LeaseStore
) -> None:
    process = start()
    process.consume(print)
    store.is_away = True

    with pytest.raises(BackendUnavailableError):
        send(process, 1)

    assert process.broker.stats().queues["a.b"].refused == {"unavailable": 1}


def test_a_reader_outlives_a_store_that_was_away(
    start: MakeProcess, store: LeaseStore
) -> None:
    recorder = Recorder()
    process, notes = start(hook=recorder), Notes()
    process.consume(notes)
    store.is_away = True
    wait_until(lambda: recorder.named("failed"))

    store.is_away = False
    send(process, 1)

    wait_until(lambda: notes.handled == [(1, 1)])


# ------------------------------------------------------------ kinds of handlers


def test_async_handlers_settle_in_the_store(
    start: MakeProcess, store: LeaseStore
) -> None:
    process = start()
    attempts: Counter[int] = Counter()

    async def handle(message: Message[Any]) -> None:
        attempts[message.attempt] += 1
        await asyncio.sleep(0)
        if message.data % 2 and message.attempt == 1:
            raise ValueError

    retry = Retry(min_delay=0, max_delay=0)
    process.consume(handle, concurrency=8, retry=retry)

    send(process, *range(20))

    wait_until(lambda: not store.rows)
    wait_until_settled(process.broker)
    assert attempts == {1: 20, 2: 10}
    assert process.stats.succeeded == len(store.finished) == 20
    assert process.held == 0


def test_async_handlers_that_a_close_cancels_go_to_the_other_process(
    start: MakeProcess,
) -> None:
    one, two, notes = start(), start(), Notes()
    inside = threading.Semaphore(0)

    async def wait(message: Message[Any]) -> None:
        inside.release()
        await asyncio.Event().wait()

    one.consume(wait, concurrency=2)
    send(one, 1, 2)
    for _ in range(2):
        inside.acquire(timeout=5)
    one.broker.close(timeout=0.01)

    two.consume(notes)

    wait_until(lambda: sorted(notes.handled) == [(1, 1), (2, 1)])


def test_one_bad_member_of_a_batch_is_retried_alone(
    start: MakeProcess, store: LeaseStore
) -> None:
    process = start()
    tried: Counter[int] = Counter()
    last: list[list[int]] = []

    def handle(messages: list[Message[Any]]) -> None:
        numbers = [one.data for one in messages]
        last.append([one.attempt for one in messages])
        tried.update(numbers)
        if 3 in numbers and tried[3] < 3:
            raise ValueError

    retry = Retry(min_delay=10, max_delay=10, jitter=False)
    process.consume(handle, batch=10, retry=retry)
    process.broker.pause("c")
    send(process, *range(5))
    process.broker.resume("c")
    wait_until(lambda: len(store.finished) == 4)
    wait_until(lambda: process.stats.retries == 1)

    store.clock.advance(10)

    wait_until(lambda: not store.rows)
    wait_until_settled(process.broker)
    assert last[-1] == [2]
    assert (process.stats.succeeded, process.stats.handed_back) == (5, 1)
    assert process.held == 0


def test_numbers_add_up_in_each_process(start: MakeProcess, store: LeaseStore) -> None:
    one, two = start(), start()

    def handle(message: Message[Any]) -> None:
        if message.attempt == 1 and message.data % 4 == 0:
            raise ValueError

    for process in (one, two):
        process.consume(handle, capacity=7, retry=Retry(min_delay=0, max_delay=0))
    send(one, *range(60))
    send(two, *range(60, 100))

    wait_until(lambda: not store.rows)
    wait_until_settled(one.broker)
    wait_until_settled(two.broker)

    assert one.broker.stats().queues["a.b"].published == 60
    assert two.broker.stats().queues["a.b"].published == 40
    dispatched = [process.stats.dispatched["a.b"] for process in (one, two)]
    assert sum(dispatched) == 125
    assert one.stats.succeeded + two.stats.succeeded == 100
    assert one.stats.handed_back + two.stats.handed_back == 25
    assert one.stats.wait.counts[-1] == two.stats.wait.counts[-1] == 0
