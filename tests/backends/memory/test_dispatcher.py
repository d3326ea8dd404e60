from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.counts import MAX_UNDECLARED_TYPES
from django_gomq.bus.delivery import DropReason
from django_gomq.bus.errors import NotRunningError, PublishError
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


def test_every_subscriber_gets_every_message(broker: Broker) -> None:
    handled: list[str] = []
    for name in ("one", "two"):
        broker.consume("a.b", lambda m, name=name: handled.append(name), name=name)

    broker.publish(Message("a.b"))

    wait_until(lambda: sorted(handled) == ["one", "two"])


def test_a_pattern_subscribes_to_types_that_come_later(broker: Broker) -> None:
    handled: list[str] = []
    broker.consume("a.*", lambda m: handled.append(m.type), name="c")

    broker.publish(Message("a.b.c"))

    wait_until(lambda: handled == ["a.b.c"])


def test_who_subscribes_later_gets_what_comes_then(broker: Broker) -> None:
    handled: list[int] = []
    broker.consume("a.b", lambda _: None, name="old")
    broker.publish(Message("a.b", b"1"))
    wait_until_settled(broker)

    broker.consume("a.b", lambda m: handled.append(m.data), name="new")
    broker.publish(Message("a.b", b"2"))

    wait_until(lambda: handled == [2])
    assert broker.stats().consumers["new"].dispatched == {"a.b": 1}


def test_a_full_channel_holds_nobody_else_up(broker: Broker) -> None:
    handled: list[int] = []
    broker.consume("a.b", print, name="slow", capacity=1)
    broker.pause("slow")
    broker.consume("a.b", lambda m: handled.append(m.data), name="quick")

    for number in range(5):
        broker.publish(Message("a.b", b"%d" % number))

    wait_until(lambda: handled == [0, 1, 2, 3, 4])
    wait_until(lambda: sum(broker.stats().consumers["slow"].dropped.values()) == 4)


def fail_once(subscription: Any) -> threading.Event:
    """Have the next offer to this subscription raise; return an event of that."""
    failed, offer = threading.Event(), subscription.offer

    def raise_once(*args: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("injected")
        offer(*args)

    subscription.offer = raise_once
    return failed


def test_a_dispatcher_that_dies_is_restarted_and_loses_nothing(
    make_broker: MakeBroker,
) -> None:
    recorder, handled = Recorder(), list[int]()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", lambda m: handled.append(m.data), name="one")
    broker.consume("a.b", lambda _: None, name="two")
    fail_once(broker._current_runtime().subscription("one"))

    for number in range(3):
        while True:
            try:
                broker.publish(Message("a.b", b"%d" % number))
                break
            except NotRunningError:
                continue
    wait_until(lambda: handled == [0, 1, 2])
    wait_until_settled(broker)

    (failure,) = recorder.named("failed")
    assert failure[0] == "reader"
    assert broker.stats().reader_up
    assert broker.stats().consumers["two"].succeeded == 3


def test_the_reason_of_a_refusal_is_what_was_seen_and_not_what_is_true_by_then(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()
    publisher = cast(MemoryBackend, broker._current_runtime().backend)._publisher

    class Flickering:
        looks = 0

        @property
        def is_up(self) -> bool:
            self.looks += 1
            return self.looks > 1

    publisher._loop = cast(Any, Flickering())

    with pytest.raises(NotRunningError):
        broker.publish(Message("a.b"))


def test_while_the_dispatcher_is_down_publishing_is_refused(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker()
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()
    asleep, wake = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        asleep.set()
        wake.wait(LONG)

    monkeypatch.setattr("django_gomq.backends.memory.dispatcher.time.sleep", sleep)
    fail_once(broker._current_runtime().subscription("c"))
    broker.publish(Message("a.b"))
    assert asleep.wait(LONG)

    with pytest.raises(NotRunningError) as caught:
        broker.publish(Message("a.b"))

    assert caught.value.code == "not_running"
    assert not broker.stats().reader_up
    monkeypatch.undo()
    wake.set()
    wait_until(lambda: broker.stats().reader_up)
    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 1
    assert broker.stats().queues["a.b"].published == 1


@pytest.mark.parametrize("overflow", ["drop_newest", "backpressure"])
def test_what_a_dead_dispatcher_had_in_hand_is_dropped_by_a_stop(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch, overflow: Any
) -> None:
    broker = make_broker()
    broker.consume("a.b", lambda _: None, name="c", overflow=overflow)
    broker.start()
    asleep, wake = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        asleep.set()
        wake.wait(LONG)

    subscription: Any = broker._current_runtime().subscription("c")

    def fail(*_: Any) -> None:
        raise RuntimeError("injected")

    subscription.offer = subscription.offer_reserved = fail
    monkeypatch.setattr("django_gomq.backends.memory.dispatcher.time.sleep", sleep)
    broker.publish(Message("a.b"))
    assert asleep.wait(LONG)
    monkeypatch.undo()

    broker.close(timeout=0)

    wake.set()
    stats = broker.stats()
    assert stats.consumers["c"].dropped == {("a.b", DropReason.SHUTDOWN): 1}
    assert stats.consumers["c"].unaccounted == 0
    assert stats.consumers["c"].depth == 0
    assert stats.queues["a.b"].depth == 0


def test_backpressure_keeps_messages_in_the_queue_until_there_is_room(
    make_broker: MakeBroker,
) -> None:
    broker, handled = make_broker(capacity=3), list[int]()
    broker.consume(
        "a.b",
        lambda m: handled.append(m.data),
        name="c",
        overflow="backpressure",
        capacity=2,
    )
    broker.pause("c")
    for number in range(5):
        broker.publish(Message("a.b", b"%d" % number), timeout=5)
    wait_until(lambda: broker.stats().consumers["c"].depth == 2)

    with pytest.raises(PublishError):
        broker.publish(Message("a.b"))
    broker.resume("c")

    wait_until(lambda: handled == [0, 1, 2, 3, 4])
    wait_until_settled(broker)
    assert not broker.stats().consumers["c"].dropped


def test_a_waiting_queue_waits_once_however_often_it_is_looked_at(
    broker: Broker,
) -> None:
    broker.consume("a.b", print, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    for _ in range(20):
        broker.publish(Message("a.b"))
    backend: Any = broker._current_runtime().backend

    for _ in range(20):
        backend._dispatcher.look_everywhere()
        wait_until(lambda: not backend._dispatcher.loop._items)

    assert len(broker._current_runtime().subscription("c").channel._waiters) <= 1


def test_queues_behind_one_gate_all_move_on(broker: Broker) -> None:
    handled: list[str] = []
    broker.consume(
        ["a.a", "a.b", "a.c"],
        lambda m: handled.append(m.type),
        name="c",
        overflow="backpressure",
        capacity=1,
    )
    broker.pause("c")
    for event in ("a.a", "a.b", "a.c") * 30:
        broker.publish(Message(event))

    broker.resume("c")

    wait_until(lambda: len(handled) == 90)


def test_of_two_gates_the_fuller_one_decides(broker: Broker) -> None:
    for name, capacity in (("wide", 5), ("narrow", 2)):
        broker.consume(
            "a.b", print, name=name, overflow="backpressure", capacity=capacity
        )
        broker.pause(name)

    for _ in range(4):
        broker.publish(Message("a.b"))

    wait_until(lambda: broker.stats().consumers["narrow"].depth == 2)
    wait_until(lambda: broker._current_runtime().subscription("wide").channel.held == 2)
    assert broker.stats().queues["a.b"].depth == 2


def test_more_types_than_labels_share_a_queue_and_reach_their_consumers(
    make_broker: MakeBroker,
) -> None:
    broker, handled = make_broker(capacity=100), list[str]()
    broker.consume("a.*", lambda m: handled.append(m.type), name="c", capacity=9999)
    broker.consume("b.x", lambda _: None, name="other")
    types = [f"a.t{number}" for number in range(MAX_UNDECLARED_TYPES + 30)]

    for event in types:
        broker.publish(Message(event), timeout=5)
    wait_until(lambda: sorted(handled) == sorted(types))

    wait_until_settled(broker)
    queues = broker.stats().queues
    assert queues["_other"].dispatched == 30
    assert len(queues) <= MAX_UNDECLARED_TYPES + 2


def test_the_shared_queue_waits_for_nobody_who_gets_nothing_of_it(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.backends.memory.queues.MAX_UNDECLARED_TYPES", 0)
    broker, handled = make_broker(), list[int]()
    broker.consume("a.*", lambda m: handled.append(m.data), name="c")
    broker.consume("b.x", print, name="full", overflow="backpressure", capacity=1)
    broker.pause("full")
    broker.publish(Message("b.x"))
    wait_until(lambda: broker.stats().consumers["full"].depth == 1)

    for number in range(5):
        broker.publish(Message("a.x", b"%d" % number))

    wait_until(lambda: handled == [0, 1, 2, 3, 4])


def test_the_shared_queue_keeps_to_gates_and_priorities(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.backends.memory.queues.MAX_UNDECLARED_TYPES", 0)
    broker, handled = make_broker(), list[int]()
    broker.consume("a.*", lambda m: handled.append(m.data), name="c")
    broker.consume(
        "b.*", print, name="subscription", overflow="backpressure", capacity=50
    )
    broker.pause("c")
    for number in range(10):
        broker.publish(Message("a.x", b"%d" % number, priority=number))
    wait_until(lambda: broker.stats().consumers["c"].depth == 10)

    broker.consume("a.x", print, name="late")
    broker.pause("late")
    broker.publish(Message("a.y"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 11)
    broker.resume("c")

    wait_until(lambda: handled == [9, 8, 7, 6, 5, None, 4, 3, 2, 1, 0])
    assert broker._current_runtime().subscription("subscription").channel.held == 0


def test_a_batch_that_a_stop_took_is_no_trouble(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", overflow="backpressure")
    broker.start()
    backend: Any = broker._current_runtime().backend
    queue = backend._queues.open("a.b")

    plan = backend._dispatcher._plan(queue, queue.recipients, [], 0)

    assert plan == []


def test_a_message_left_unscheduled_by_a_signal_handler_is_found(
    broker: Broker,
) -> None:
    handled: list[Any] = []
    broker.consume("a.b", handled.append, name="c")
    broker.start()
    backend: Any = broker._current_runtime().backend

    backend._queues.open("a.b").put(Message("a.b"))  # and no call of schedule()
    backend._dispatcher.look_everywhere()

    wait_until(lambda: handled)


def test_a_subscriber_that_joins_between_reserving_and_handing_over_waits(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()
    backend: Any = broker._current_runtime().backend
    reserve = type(backend._dispatcher)._plan

    def join_and_plan(*args: Any) -> Any:
        monkeypatch.undo()
        broker.consume("a.b", lambda _: None, name="new", overflow="backpressure")
        return reserve(*args)

    monkeypatch.setattr(type(backend._dispatcher), "_plan", join_and_plan)

    broker.publish(Message("a.b"))
    wait_until(lambda: len(broker.consumers) == 2)
    wait_until_settled(broker)

    assert broker._current_runtime().subscription("new").channel.held == 0
    assert broker.stats().consumers["new"].dispatched == {}


def test_room_that_an_emptied_queue_was_called_for_goes_to_the_next(
    broker: Broker,
) -> None:
    broker.consume("a.*", lambda _: None, name="c", overflow="backpressure", capacity=1)
    broker.start()
    backend: Any = broker._current_runtime().backend
    queue = backend._queues.open("a.a")
    channel = broker._current_runtime().subscription("c").channel
    channel.try_permit()
    called = threading.Event()
    channel.call_when_room(called.set)
    channel._add_permits(1)  # its caller was called, and found nothing to do

    backend._dispatcher.schedule(queue)

    assert called.wait(5)


def test_room_that_came_before_the_queue_could_wait_is_used(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c", overflow="backpressure", capacity=1)
    broker.start()
    backend: Any = broker._current_runtime().backend
    queue = backend._queues.open("a.b")
    queue.put(Message("a.b"))
    life = broker._current_runtime()

    backend._dispatcher._wait_for_room(queue, life.subscription("c"))

    wait_until(lambda: life.subscription("c").counts.dispatched == {"a.b": 1})


def test_more_than_a_batch_is_dispatched_to_its_end(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=2000)
    broker.consume("a.b", lambda _: None, name="c", capacity=2000)
    broker.start()
    mend_nothing(broker)

    broker.publish_many([Message("a.b")] * 2000)

    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 2000


def mend_nothing(broker: Broker) -> None:
    """Have the dispatcher look only where it is told to look."""
    backend: Any = broker._current_runtime().backend
    backend._timers.cancel(backend._dispatcher.look_everywhere)


def test_a_dispatcher_starts_once(broker: Broker) -> None:
    broker.start()
    backend: Any = broker._current_runtime().backend
    thread = backend._dispatcher.loop._thread

    backend._dispatcher.loop.start()

    assert backend._dispatcher.loop._thread is thread
