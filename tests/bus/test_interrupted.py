"""Exceptions that a signal handler raises in the midst of publishing and closing."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest

from django_gomq.backends.memory import buffer as lock_free
from django_gomq.backends.memory.buffer import PublishBuffer
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import PublishError, QueueFullError
from django_gomq.bus.message import Message
from django_gomq.bus.process.interrupts import run_shielded
from tests.bus.conftest import MakeBroker
from tests.bus.interrupting import Interrupted, interrupt_often, undisturbed
from tests.bus.ledger import CAPACITY, Ledger, Publisher, check_books, queue_of
from tests.bus.shooting import Shot
from tests.bus.stopping import let_stops_wait
from tests.bus.waiting import LONG, fast_switching, wait_until

# A thread that is interrupted while it starts another one confuses Python's own books
# of threads: the other one may end at once, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    with undisturbed():
        yield


@pytest.fixture(params=[40, pytest.param(1000, marks=pytest.mark.slow)])
def rounds(request: pytest.FixtureRequest) -> int:
    """How often to interrupt."""
    number: int = request.param
    return number


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def consuming(make_broker: MakeBroker, ledger: Ledger) -> Broker:
    """A broker that runs, with one consumer that holds its queue back."""
    broker = make_broker(capacity=CAPACITY, threads=2)
    broker.consume("a.b", ledger, name="c", capacity=1000, overflow="backpressure")
    broker.start()
    return broker


# ---------------------------------------------------------------------- publishing


def test_publishing_loses_no_permit_and_no_message(
    consuming: Broker, ledger: Ledger, interrupts: threading.Event, rounds: int
) -> None:
    publisher = Publisher(consuming)

    publisher.publish_through(interrupts, rounds)

    assert publisher.interrupted == rounds
    check_books(consuming, publisher, ledger)


def test_waiting_for_room_loses_no_permit_and_no_message(
    consuming: Broker, ledger: Ledger, interrupts: threading.Event, rounds: int
) -> None:
    publisher = Publisher(consuming, timeout=LONG)

    with fast_switching():
        publisher.publish_through(interrupts, rounds)

    assert not publisher.refused
    check_books(consuming, publisher, ledger)


def test_delayed_messages_lose_no_permit_and_come(
    consuming: Broker, ledger: Ledger, interrupts: threading.Event, rounds: int
) -> None:
    publisher = Publisher(consuming, delay=0.001)

    publisher.publish_through(interrupts, rounds)

    assert publisher.accepted
    check_books(consuming, publisher, ledger)
    assert consuming.stats().queues["a.b"].delayed == 0


def test_batches_lose_no_permit_and_no_message(
    consuming: Broker, ledger: Ledger, interrupts: threading.Event, rounds: int
) -> None:
    number = 0

    def publish_for_ever() -> NoReturn:
        nonlocal number
        while True:
            batch = [Message[int]("a.b", b"%d" % (number + n)) for n in range(10)]
            number += 10
            consuming.publish_many(batch)

    hits = interrupt_often(publish_for_ever, interrupts, rounds)

    queue = queue_of(consuming)
    wait_until(lambda: not queue.held and consuming.stats().is_quiet)
    assert hits == rounds
    assert queue.dispatched == len(ledger.seen) == len(set(ledger.seen))
    assert queue.room == CAPACITY


def has_whole_worker(broker: Broker) -> bool:
    """Whether three threads live, and the one slot of "c" is free."""
    life = broker._current_runtime()
    free_slots = life.subscription("c").free_slots
    return (life._worker.alive, len(free_slots)) == (3, 1)


def test_a_first_publish_that_is_interrupted_leaves_a_whole_worker(
    make_broker: MakeBroker, interrupts: threading.Event
) -> None:
    hits = 0
    for number in range(30):
        broker, seen = make_broker(threads=3), Ledger()
        broker.consume("a.b", seen, name="c")
        shot, ended = Shot(number * 20e-6), False
        interrupts.set()
        try:
            shot.fire()
            broker.publish(Message("a.b", b"1"))
            ended = True
            shot.land()
        except Interrupted:
            hits += not ended

        broker.publish(Message("a.b", b"2"))
        wait_until(seen.has_seen_2)

        wait_until(functools.partial(has_whole_worker, broker))
        broker.close(timeout=1)
    assert hits, "no signal hit a start"


# --------------------------------------------------------- permits of a busy queue


def test_a_lost_permit_comes_back_although_its_queue_is_never_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock_free, "LONG_PATIENCE", 0.02)
    buffer = PublishBuffer[int](4)
    buffer.try_permit()  # and the put is never made

    def look() -> int:
        buffer.put(1)
        buffer.release(len(buffer.take(1)))
        return buffer.reconcile(patience=60)

    wait_until(look)

    assert (buffer.held, buffer.room) == (0, 4)


def test_a_busy_queue_whose_permits_are_on_their_way_loses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock_free, "LONG_PATIENCE", 0.01)
    buffer = PublishBuffer[int](4)
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        buffer.try_permit()
        assert buffer.reconcile(patience=60) == 0
        buffer.put_permitted(1)
        assert buffer.reconcile(patience=60) == 0
        buffer.release(len(buffer.take(1)))

    assert buffer.room == 4


def test_a_publisher_finds_room_of_which_nobody_told_it(broker: Broker) -> None:
    """As where a signal handler raised in the one that should have."""
    release = threading.Event()
    broker.consume("a.b", lambda _: release.wait(LONG), name="c", capacity=1)
    broker.start()
    broker.publish(Message("a.b"))
    queue = queue_of(broker)
    queue.resize(1)
    wait_until(lambda: queue.room == 1)
    queue.try_permit()
    answers: list[str] = []

    def publish() -> None:
        broker.publish(Message("a.b"), timeout=LONG)
        answers.append("published")

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    wait_until(lambda: queue._waiters)
    queue._waiters.clear()
    queue.return_permits(1)

    wait_until(lambda: answers)
    release.set()


# ------------------------------------------------------------------------- closing


def close_under_fire(broker: Broker, shot: Shot) -> None:
    def fire() -> None:
        wait_until(lambda: broker.is_closed)
        shot.fire()

    threading.Thread(target=fire, daemon=True).start()
    broker.close(timeout=LONG)


def test_an_interrupted_close_is_resumed_with_a_limit_of_its_own(
    make_broker: MakeBroker, interrupts: threading.Event
) -> None:
    broker, go_on, handled = make_broker(threads=1), threading.Event(), list[int]()

    def handle(message: Message[int]) -> None:
        go_on.wait(LONG)
        handled.append(message.data)

    broker.consume("a.b", handle, name="c")
    for number in range(5):
        broker.publish(Message("a.b", b"%d" % number))
    shot = Shot(0.05)
    interrupts.set()

    with pytest.raises(Interrupted):
        close_under_fire(broker, shot)
    with pytest.raises(PublishError):
        broker.publish(Message("a.b"))
    # Longer than a stop takes that waits for nobody.
    threading.Timer(1.0, go_on.set).start()
    remainder = broker.close(timeout=LONG)

    assert handled == list(range(5))
    assert remainder.is_clean


def test_a_close_that_is_interrupted_at_any_moment_accounts_for_every_message(
    make_broker: MakeBroker,
    interrupts: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_stops_wait(monkeypatch)
    hits = 0
    for number in range(30):
        broker, seen = make_broker(threads=2), Ledger()
        broker.consume("a.b", seen, name="c")
        for one in range(200):
            broker.publish(Message("a.b", b"%d" % one))
        broker.publish(Message("a.b", b"200", delay=2 * LONG))
        shot = Shot(number * (20e-6 if number % 2 else 100e-6))
        ended = False
        interrupts.set()
        try:
            shot.fire()
            broker.close(timeout=0 if number % 2 else LONG)
            ended = True
            shot.land()
        except Interrupted:
            hits += not ended

        remainder = broker.close(timeout=LONG)

        stats = broker.stats()
        queue, consumer = stats.queues["a.b"], stats.consumers["c"]
        assert queue.published == queue.dispatched == 201
        assert queue.depth == queue.delayed == consumer.depth == 0
        assert consumer.succeeded == len(seen.seen)
        assert sum(consumer.dropped.values()) == sum(remainder.dropped.values())
        assert consumer.succeeded + sum(remainder.dropped.values()) == 201
    assert hits, "no signal hit a close"


def test_what_a_close_raises_on_its_own_is_not_lost() -> None:
    def fail() -> None:
        raise QueueFullError("full")

    with pytest.raises(QueueFullError):
        run_shielded(fail)


def start_and_be_interrupted(thread: threading.Thread) -> None:
    """As threading does where a signal handler raises while it leaves a lock."""
    try:
        raise Interrupted
    except Interrupted:
        raise RuntimeError("release unlocked lock")  # noqa: B904 - nor does it


def start_at_the_end(thread: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


def test_what_cannot_have_a_thread_of_its_own_runs_on_its_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", start_at_the_end)
    ran: list[int] = []

    run_shielded(lambda: ran.append(1))

    assert ran == [1]


def test_an_exception_that_breaks_the_start_of_a_thread_comes_up_as_it_was_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", start_and_be_interrupted)
    ran: list[int] = []

    with pytest.raises(Interrupted):
        run_shielded(lambda: ran.append(1))

    assert ran == []


def test_what_runs_whole_ends_though_its_caller_is_interrupted(
    interrupts: threading.Event,
) -> None:
    go_on, steps, shot = threading.Event(), list[int](), Shot(0.02)

    def call() -> None:
        shot.fire()
        go_on.wait(LONG)
        steps.append(1)

    interrupts.set()
    with pytest.raises(Interrupted):
        run_shielded(call)
    go_on.set()

    wait_until(lambda: steps)
