"""Consumers that miss nothing: what finds no room is stored, and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Capabilities
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.spilling import MIN_BUFFER, Spilled
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import Delivery, DropReason, RetryLater
from django_gomq.bus.errors import ConfigurationError, PublishTimeoutError
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.retry import Retry
from tests.bus.observing import Recorder
from tests.bus.spilling import Process, SharedTable, lose
from tests.bus.stopping import let_stops_wait
from tests.bus.waiting import LONG, wait_until, wait_until_settled


class Handler:
    """Handles numbers, as far as a gate lets it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.attempts: list[int] = []
        self.gate = Event()

    def __call__(self, message: Message[int]) -> None:
        assert self.gate.wait(LONG)
        self.numbers.append(message.data)
        self.attempts.append(message.attempt)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let neither a start nor a stop give up because a machine is busy."""
    let_stops_wait(monkeypatch)
    monkeypatch.setattr("django_gomq.bus.worker.spiller.CHECK_SECONDS", LONG)


@pytest.fixture
def table() -> SharedTable:
    return SharedTable()


@pytest.fixture
def handler() -> Iterator[Handler]:
    made = Handler()
    yield made
    made.gate.set()


@pytest.fixture
def start(table: SharedTable) -> Iterator[Callable[..., Process]]:
    """Make processes with a consumer "c" of "a.b" that spills."""
    made: list[Process] = []

    def start(handle: Callable[[Any], object], **options: Any) -> Process:
        process = Process(
            table,
            capacity=options.pop("queue", 1000),
            hooks=options.pop("hooks", ()),
        )
        made.append(process)
        options = {"overflow": "spill", "capacity": 3, **options}
        process.broker.consume("a.b", handle, name="c", **options)
        return process

    yield start
    table.is_up = True
    table.gate.set()
    for process in made:
        process.close()


Start = Callable[..., Process]


def stored(table: SharedTable) -> int:
    return len(table.rows)


@pytest.mark.parametrize("options", [{}, {"ordered_by_key": True}])
def test_what_finds_no_room_is_stored_and_comes_back_in_order(
    start: Start, table: SharedTable, handler: Handler, options: dict[str, Any]
) -> None:
    process = start(handler, **options)

    process.send(*range(400), key="k")
    wait_until(lambda: process.stats().spilled == stored(table) >= 396)
    wait_until(lambda: process.stats().unaccounted == 0)
    assert process.stats().dropped == {}
    handler.gate.set()
    wait_until_settled(process.broker)

    assert handler.numbers == list(range(400))
    assert process.stats().spilled == stored(table) == 0


def test_a_burst_that_fits_is_not_stored(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    handler.gate.set()
    process = start(handler, capacity=1000)

    process.send(*range(500))
    wait_until_settled(process.broker)

    assert "write" not in table.calls


def test_the_more_urgent_comes_back_first(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(handler, capacity=1)
    process.send(0)
    wait_until(lambda: process.stats().in_flight)
    process.send(1, 2, priority=1)
    process.send(3, 4, priority=9)
    wait_until(lambda: stored(table) == 4)

    handler.gate.set()
    wait_until_settled(process.broker)

    assert handler.numbers == [0, 3, 4, 1, 2]


def test_a_slow_consumer_that_spills_keeps_no_other_waiting(
    start: Start, handler: Handler
) -> None:
    process = start(handler)
    others: list[int] = []
    process.broker.consume("a.b", lambda m: others.append(m.data), name="other")

    process.send(*range(900))

    wait_until(lambda: len(others) == 900)
    assert handler.numbers == []


def test_without_a_store_that_answers_the_type_is_held_back_and_nothing_is_dropped(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    recorder = Recorder()
    process = start(handler, queue=10, hooks=[recorder])
    process.broker.start()
    wait_until(lambda: "adopt" in table.calls)
    table.is_up = False
    sent = MIN_BUFFER + 3 + 10
    for number in range(sent):
        process.broker.publish(Message("a.b", b"%d" % number), timeout=LONG)
    with pytest.raises(PublishTimeoutError):
        while True:
            process.broker.publish(Message("a.b", b"%d" % sent), timeout=0.05)
            sent += 1
    wait_until(lambda: recorder.named("failed"))

    table.is_up = True
    handler.gate.set()
    wait_until_settled(process.broker)
    assert handler.numbers == list(range(sent))
    assert len(recorder.named("failed")) < 3, "told more than once for each outage"


def test_a_store_that_is_away_at_the_start_keeps_nobody_from_work(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    table.is_up = False
    handler.gate.set()
    process = start(handler, ordered_by_key=True, capacity=100)

    process.send(*range(50), key="k")

    wait_until(lambda: handler.numbers == list(range(50)))
    wait_until(lambda: table.calls.count("adopt") > 2)  # it is asked again and again


@pytest.mark.parametrize("is_ordered", [False, True])
def test_only_order_waits_for_a_store_that_is_away(
    start: Start, table: SharedTable, handler: Handler, *, is_ordered: bool
) -> None:
    process = start(handler, ordered_by_key=is_ordered)
    process.send(*range(10), key="k")
    wait_until(lambda: process.stats().in_flight and stored(table) == 7)
    table.is_up = False
    asked = len(table.calls)
    process.send(10, key="k")
    wait_until(lambda: "write" in table.calls[asked:])  # which was perhaps stored
    process.send(11, 12, 13, key="k")
    wait_until(lambda: process.stats().spilled == 11)

    handler.gate.set()
    most = [0, 1, 2] if is_ordered else [0, 1, 2, 11, 12, 13]
    wait_until(lambda: len(handler.numbers) >= len(most))
    asked = len(table.calls)
    wait_until(lambda: "write" in table.calls[asked:])
    assert handler.numbers == most
    table.is_up = True
    wait_until_settled(process.broker)

    assert sorted(handler.numbers) == list(range(14))
    if is_ordered:
        assert handler.numbers == list(range(14))


def test_what_a_stop_leaves_is_stored_and_the_next_process_goes_on(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    one = start(handler, capacity=5)
    one.send(*range(20), key="k")
    wait_until(lambda: one.stats().in_flight)

    one.broker.pause("c")
    handler.gate.set()
    wait_until(lambda: not one.stats().in_flight)
    remainder = one.close()

    left = 20 - len(handler.numbers)
    assert (remainder.spilled, remainder.left) == (left, 0)
    assert remainder.is_clean
    stats = one.stats()
    assert (stats.spilled, stats.depth, stats.unaccounted) == (left, 0, 0)
    two = start(handler, capacity=5)
    two.broker.start()
    wait_until(lambda: len(handler.numbers) == 20)
    assert handler.numbers == list(range(20))
    wait_until_settled(two.broker)
    assert sum(two.stats().dispatched.values()) == left


def test_what_a_stop_finds_queued_is_stored_too(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(handler, queue=10)
    process.broker.start()
    process.broker.pause("c")
    wait_until(lambda: "adopt" in table.calls)
    table.gate.clear()
    subscription = process.broker._current_runtime().subscription("c")
    sent = 0

    def depth() -> int:
        return process.broker.stats().queues["a.b"].depth

    while subscription.inlet.has_room or depth() < 10:
        with suppress(PublishTimeoutError):
            process.broker.publish(Message("a.b", b"%d" % sent), timeout=0.05)
            sent += 1

    with ThreadPoolExecutor() as pool:
        closing = pool.submit(process.close)
        wait_until(lambda: depth() == 0)
        table.gate.set()
        remainder = closing.result()

    assert (remainder.spilled, remainder.dropped) == (sent, {})
    assert process.stats().unaccounted == 0


def test_attempts_and_their_pause_survive_a_stop(
    start: Start, table: SharedTable
) -> None:
    seen: list[tuple[int, int]] = []

    def fail(message: Message[int]) -> None:
        seen.append((message.data, message.attempt))
        raise ValueError

    options = {"retry": Retry(attempts=5, min_delay=60, max_delay=60, jitter=False)}
    one = start(fail, ordered_by_key=True, **options)
    one.send(1, 2, key="k")
    wait_until(lambda: one.stats().scheduled)
    first_failed = time.time()
    one.close()

    ((_, _, failed), (_, _, waiting)) = sorted(table.rows, key=lambda row: row[2].place)
    assert (failed.delivery.attempt, waiting.delivery.attempt) == (2, 1)
    assert failed.delivery.first_failed == pytest.approx(first_failed, abs=LONG)
    two = start(fail, ordered_by_key=True, **options)
    two.broker.start()
    wait_until(lambda: two.stats().scheduled == 1 and two.stats().depth == 1)
    assert seen == [(1, 1)], "it came before it was due, or the other one before it"


def test_what_was_to_come_later_comes_no_earlier(
    start: Start, table: SharedTable
) -> None:
    seen: list[int] = []

    def postpone(message: Message[int]) -> None:
        seen.append(message.data)
        raise RetryLater(90)

    one = start(postpone)
    one.send(1)
    wait_until(lambda: one.stats().scheduled)
    one.close()
    two = start(postpone)
    two.broker.start()

    wait_until(lambda: two.stats().scheduled == 1)
    assert seen == [1]


def test_a_stop_has_an_end_and_counts_what_it_could_not_store(
    start: Start,
    table: SharedTable,
    handler: Handler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_gomq.bus.runtime.SPILL_SECONDS", 0.05)
    process = start(handler)
    process.broker.start()
    process.broker.pause("c")
    wait_until(lambda: "adopt" in table.calls)
    table.gate.clear()
    process.send(*range(50))
    wait_until(lambda: process.stats().spilled + process.stats().depth == 50)

    remainder = process.close()

    assert remainder.dropped == {"a.b": 50}
    assert process.stats().unaccounted == 0
    table.gate.set()


def test_a_stop_goes_on_where_the_store_is_away(
    start: Start, table: SharedTable, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.runtime.SPILL_SECONDS", 0.5)
    process = start(handler)
    process.broker.start()
    process.broker.pause("c")
    wait_until(lambda: "adopt" in table.calls)
    table.is_up = False
    process.send(*range(5))
    wait_until(lambda: process.stats().spilled + process.stats().depth == 5)

    assert process.close().dropped == {"a.b": 5}
    assert process.stats().unaccounted == 0


def test_a_stop_stores_what_it_can_once_the_store_is_back(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(handler)
    process.broker.start()
    process.broker.pause("c")
    wait_until(lambda: "adopt" in table.calls)
    table.is_up = False
    process.send(*range(5))
    wait_until(lambda: process.stats().spilled + process.stats().depth == 5)

    with ThreadPoolExecutor() as pool:
        closing = pool.submit(process.close)
        wait_until(lambda: process.broker.is_closed)
        asked = len(table.calls)
        wait_until(lambda: table.calls[asked:].count("write") > 1)  # in vain
        table.is_up = True
        remainder = closing.result()

    assert (remainder.spilled, remainder.dropped) == (5, {})
    assert process.stats().unaccounted == 0


def test_a_drain_waits_for_what_was_spilled_and_not_for_a_pause(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(handler)
    process.send(*range(100))
    wait_until(lambda: stored(table) >= 96)
    handler.gate.set()

    assert process.close(timeout=LONG).spilled == 0
    assert handler.numbers == list(range(100))

    paused = start(handler)
    paused.broker.start()
    paused.broker.pause("c")
    paused.send(*range(100))
    remainder = paused.close(timeout=LONG)
    assert remainder.spilled == 100
    assert remainder.seconds < LONG


def test_a_store_that_can_keep_nothing_is_told_at_the_start(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    table.problem = ConfigurationError("run migrate")
    handler.gate.set()
    process = start(handler)

    with pytest.raises(ConfigurationError, match="run migrate"):
        process.send(1)
    with pytest.raises(ConfigurationError, match="run migrate"):
        process.broker.start()

    table.problem = None
    process.send(2)
    wait_until(lambda: handler.numbers == [2])


def test_a_start_does_not_wait_for_ever_for_the_store(
    start: Start,
    table: SharedTable,
    handler: Handler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.spiller.CHECK_SECONDS", 0.01)
    table.gate.clear()

    process = start(handler)
    process.send(1)

    assert process.broker.is_started
    table.gate.set()
    handler.gate.set()
    wait_until(lambda: handler.numbers == [1])


def test_a_consumer_that_joins_later_spills_too(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(lambda _: None)
    process.broker.start()
    process.broker.consume("a.c", handler, name="d", overflow="spill", capacity=1)

    for number in range(9):
        process.broker.publish(Message("a.c", b"%d" % number))
    wait_until(lambda: stored(table) >= 7)
    handler.gate.set()

    wait_until(lambda: handler.numbers == list(range(9)))


def test_only_a_broker_that_runs_looks_for_a_store(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(handler)
    process.stats()

    assert process.close().spilled == 0
    assert table.calls == []


def test_a_consumer_that_joins_first_while_the_broker_runs_is_checked(
    table: SharedTable,
) -> None:
    process = Process(table)
    process.broker.consume("a.b", lambda _: None, name="plain")
    process.broker.start()
    table.problem = ConfigurationError("run migrate")

    with pytest.raises(ConfigurationError, match="run migrate"):
        process.broker.consume("a.b", lambda _: None, name="c", overflow="spill")

    process.close()


def test_what_others_took_over_is_handed_back(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    one = start(handler)
    one.send(*range(20))
    wait_until(lambda: one.stats().in_flight and stored(table) == 17)
    (store,) = one.environment.stores
    lose(table, store)
    other: list[int] = []
    two = start(lambda m: other.append(m.data))
    two.broker.start()
    wait_until(lambda: len(other) == 17)

    handler.gate.set()
    wait_until_settled(one.broker)

    assert handler.numbers == [0, 1, 2]
    assert one.stats().handed_back == 17
    assert sorted(other) == list(range(3, 20))


def test_a_process_with_room_goes_on_with_what_another_one_leaves(
    start: Start, table: SharedTable, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ("channels.spilling", "worker.spiller"):
        monkeypatch.setattr(f"django_gomq.bus.{where}.ADOPT_SECONDS", 0.01)
    other: list[int] = []
    two = start(lambda m: other.append(m.data))
    two.broker.start()
    wait_until(lambda: "adopt" in table.calls)
    one = start(handler)
    one.broker.start()
    one.broker.pause("c")
    one.send(*range(50))
    one.close()

    wait_until(lambda: len(other) == 50)


def test_a_process_says_that_it_lives_while_it_has_something_stored(
    start: Start, table: SharedTable, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.spiller.BEAT_SECONDS", 0.001)
    process = start(handler)
    process.broker.start()
    wait_until(lambda: "adopt" in table.calls)
    assert "beat" not in table.calls

    process.send(*range(20))
    wait_until(lambda: stored(table) == 17)
    process.send(20)

    wait_until(lambda: "beat" in table.calls)


def test_what_cannot_be_stored_is_dropped_and_told(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    recorder = Recorder()
    table.refused = {b"7"}
    process = start(handler, hooks=[recorder])
    process.send(*range(20))
    wait_until(lambda: stored(table) == 16)

    handler.gate.set()
    wait_until_settled(process.broker)

    assert process.stats().dropped == {("a.b", DropReason.CHANNEL_FULL): 1}
    wait_until(lambda: recorder.named("dropped"))
    assert recorder.named("dropped") == [("c", 1, DropReason.CHANNEL_FULL)]
    assert handler.numbers == [*range(7), *range(8, 20)]


def test_only_brokers_that_keep_messages_themselves_spill() -> None:
    consumer = make_consumer(
        ["a.b"], lambda _: None, name="c", options={"overflow": "spill"}
    )
    server, memory = Capabilities(), Capabilities(settles=False)

    server.check(consumer)

    assert not server.spills(consumer)
    assert memory.spills(consumer)


def test_a_broker_without_a_place_to_store_refuses_to_spill() -> None:
    broker = Broker(MemoryBackend)
    broker.consume("a.b", lambda _: None, name="c", overflow="spill")

    with pytest.raises(ConfigurationError, match="needs a place to store messages"):
        broker.start()


def test_what_comes_back_in_the_midst_of_a_stop_is_stored_again(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    process = start(handler)
    process.send(*range(20))
    wait_until(lambda: process.stats().in_flight and stored(table) == 17)
    table.waiting = {"take"}
    table.gate.clear()
    handler.gate.set()
    wait_until(lambda: "take" in table.calls)  # and waits for its answer
    wait_until(lambda: handler.numbers == [0, 1, 2] and not process.stats().in_flight)

    with ThreadPoolExecutor() as pool:
        closing = pool.submit(process.close)
        subscription = process.broker._current_runtime().subscription("c")
        wait_until(lambda: subscription.on_late is not None)
        table.gate.set()
        remainder = closing.result()

    assert remainder.spilled == stored(table) == 17
    assert process.stats().unaccounted == 0


def test_two_of_a_key_that_were_to_come_later_come_one_after_the_other(
    start: Start, table: SharedTable, handler: Handler
) -> None:
    handler.gate.set()
    due = Clock.monotonic() + 0.05
    for place in (1, 2):
        message = Message("a.b", b"%d" % place, key="k")
        table.rows.append((None, "c", Spilled(place, Delivery(message, due))))

    process = start(handler, ordered_by_key=True)
    process.broker.start()

    wait_until(lambda: handler.numbers == [1, 2])
    wait_until_settled(process.broker)


def test_a_replay_takes_no_more_than_the_channel_has_room_for(start: Start) -> None:
    is_mended = Event()

    def handle(message: Message[int]) -> None:
        if not is_mended.is_set():
            raise ValueError(message.data)

    process = start(handle, capacity=1)
    process.send(1)
    wait_until_settled(process.broker)
    (letter,) = process.broker.dead_letters()
    process.broker.pause("c")
    process.send(2)
    wait_until(lambda: process.stats().depth == 1)
    is_mended.set()

    assert process.broker.replay([letter.id]) == 0

    process.broker.resume("c")
    wait_until_settled(process.broker)
    assert process.broker.replay([letter.id]) == 1
    wait_until_settled(process.broker)
    stats = process.stats()
    assert (stats.succeeded, stats.unaccounted) == (2, 0)
