"""Exceptions that a signal handler raises in the midst of an operator's controls."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.channel import Channel
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.interrupting import interrupt_at, interrupt_often, undisturbed
from tests.bus.ledger import CAPACITY, Ledger, Publisher, check_books
from tests.bus.waiting import wait_until

ROOM = 1000
MANY_STEPS = 200

# A thread that is interrupted while it starts another one confuses Python's own books
# of threads: the other one may end at once, and say so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def calm() -> Iterator[None]:
    with undisturbed():
        yield


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def witness() -> Ledger:
    return Ledger()


@pytest.fixture
def consuming(make_broker: MakeBroker, ledger: Ledger, witness: Ledger) -> Broker:
    """A broker that runs, with a consumer to control and one that is left alone."""
    broker = make_broker(capacity=CAPACITY, threads=2)
    broker.consume("a.b", ledger, name="c", capacity=ROOM, overflow="backpressure")
    broker.consume("a.witness", witness, name="witness")
    broker.start()
    return broker


def channel_of(broker: Broker) -> Channel[Delivery]:
    return broker._current_runtime().subscription("c").channel


def control_until(broker: Broker, armed: threading.Event) -> None:
    """Pause, resize and resume until a signal handler was run.

    It may be in a callback of Python's own, where what is raised is lost.
    """
    while armed.is_set():
        for capacity in (1, 300, 20, ROOM):
            broker.pause("c")
            broker.resize("c", capacity)
            broker.resume("c")


def is_paused(broker: Broker) -> bool:
    return broker.stats().consumers["c"].paused


def check_pause(broker: Broker, ledger: Ledger, witness: Ledger) -> None:
    """What the broker tells of a pause is what its worker does."""
    if not is_paused(broker):
        wait_until(lambda: broker.stats().is_quiet)
        return
    wait_until(
        lambda: not broker._current_runtime()._worker.busy
    )  # what had begun is done
    handled, told = len(ledger.seen), len(witness.seen)
    broker.publish(Message("a.witness", b"1"))
    wait_until(lambda: len(witness.seen) > told)
    assert len(ledger.seen) == handled


def test_controls_that_are_interrupted_lose_no_message_no_room_and_no_lock(
    calm: None,
    consuming: Broker,
    ledger: Ledger,
    witness: Ledger,
    interrupts: threading.Event,
) -> None:
    publisher, hits = Publisher(consuming, timeout=0.05), 0

    for _ in range(10):
        with publisher.at_work():
            hits += interrupt_often(
                lambda: control_until(consuming, interrupts), interrupts, rounds=15
            )
        check_pause(consuming, ledger, witness)
    consuming.resize("c", ROOM)
    consuming.resume("c")

    assert hits > 100
    assert publisher.accepted
    assert not is_paused(consuming)
    check_books(consuming, publisher, ledger)
    assert channel_of(consuming).room == channel_of(consuming).capacity == ROOM


def fill(broker: Broker, publisher: Publisher, count: int) -> None:
    """Let so many messages wait for a consumer that is paused."""
    broker.pause("c")
    for _ in range(count):
        publisher.publish_one()
    wait_until(lambda: len(channel_of(broker)) == count)


# With 40 waiting, a capacity of 20 is a shrink that the next releases pay.
@pytest.mark.parametrize("waiting", [0, 40])
@pytest.mark.parametrize(
    ("before", "after"), [(50, 80), (50, 20), (20, 80), (20, 30), (20, 10)]
)
def test_a_resize_that_is_interrupted_at_any_step_is_whole_or_was_not(
    consuming: Broker, ledger: Ledger, waiting: int, before: int, after: int
) -> None:
    publisher, channel = Publisher(consuming), channel_of(consuming)
    publisher.publish_one()
    check_books(consuming, publisher, ledger)
    consuming.resize("c", 50)
    fill(consuming, publisher, waiting)

    for step in range(MANY_STEPS):
        consuming.resize("c", before)
        is_cut = interrupt_at(step, lambda: consuming.resize("c", after))
        assert channel.capacity in ({before, after} if is_cut else {after})
        assert channel.held == waiting
        assert channel.room == max(0, channel.capacity - waiting)
        if not is_cut:
            break
    consuming.resume("c")

    assert step > 5
    check_books(consuming, publisher, ledger)
    assert channel.room == channel.capacity == after


def test_a_resume_that_is_interrupted_at_any_step_leaves_the_pause_and_can_be_repeated(
    consuming: Broker, ledger: Ledger, witness: Ledger
) -> None:
    publisher = Publisher(consuming)

    for step in range(MANY_STEPS):
        fill(consuming, publisher, 2)
        is_cut = interrupt_at(step, lambda: consuming.resume("c"))
        assert is_paused(consuming) == is_cut
        check_pause(consuming, ledger, witness)
        consuming.resume("c")
        check_books(consuming, publisher, ledger)
        if not is_cut:
            break

    assert step > 5


def test_a_pause_that_is_interrupted_at_any_step_holds_or_does_not(
    consuming: Broker, ledger: Ledger, witness: Ledger
) -> None:
    publisher = Publisher(consuming)

    for step in range(MANY_STEPS):
        is_cut = interrupt_at(step, lambda: consuming.pause("c"))
        assert is_cut or is_paused(consuming)
        publisher.publish_one()
        check_pause(consuming, ledger, witness)
        consuming.resume("c")
        check_books(consuming, publisher, ledger)
        if not is_cut:
            break

    assert step > 1
