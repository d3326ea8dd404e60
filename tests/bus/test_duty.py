"""Who does a reader's work: its own thread, or a handler thread that sleeps."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from django_gomq.backends.memory import dispatcher as module
from django_gomq.backends.memory.dispatcher import MAX_INLINE, DispatchLoop
from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.worker import ready_queue as ready_module
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.ready_queue import ReadyQueue
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.interleaving import interleaved
from tests.bus.observing import Recorder
from tests.bus.waiting import run_threads, wait_until, wait_until_settled

OWN = "own"


class Book:
    """Notes what was worked on, and by which thread."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.threads: list[str] = []

    def note(self, item: int) -> None:
        self.items.append(item)
        self.threads.append(threading.current_thread().name)


@pytest.fixture
def registry() -> Book:
    return Book()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(2)
    worker.start()
    wait_until(lambda: len(worker._ready._sleepers) == 2)
    yield worker
    worker.stop(5)


@pytest.fixture
def errors() -> list[BaseException]:
    return []


MakeDuty = Callable[..., DispatchLoop[int]]


@pytest.fixture
def make_duty(worker: Worker, errors: list[BaseException]) -> Iterator[MakeDuty]:
    """Makes one whose own thread sleeps, and which may have errands run."""
    made: list[DispatchLoop[int]] = []

    def make(work: Callable[[int], None], **options: Any) -> DispatchLoop[int]:
        options = {"run_soon": worker.run_soon, **options}
        loop = DispatchLoop(OWN, work, on_error=errors.append, **options)
        loop.start()
        wait_until(lambda: loop._items.has_sleepers)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        loop.stop()


def test_an_idle_handler_thread_stands_in_for_our_own(
    make_duty: MakeDuty, registry: Book
) -> None:
    make_duty(registry.note).add(1)

    wait_until(lambda: registry.items == [1])
    assert registry.threads[0].startswith("gomq-handler")


def test_without_an_idle_handler_thread_our_own_works(
    make_duty: MakeDuty, registry: Book
) -> None:
    make_duty(registry.note, run_soon=lambda _: False).add(1)

    wait_until(lambda: registry.items == [1])
    assert registry.threads == [OWN]


def test_the_rest_of_a_flood_is_for_our_own_thread(
    make_duty: MakeDuty, registry: Book
) -> None:
    make_duty(registry.note).add_rest(1)

    wait_until(lambda: registry.items == [1])
    assert registry.threads == [OWN]


def test_a_stand_in_leaves_a_long_list_to_our_own_thread(
    make_duty: MakeDuty, registry: Book
) -> None:
    many = 3 * MAX_INLINE

    def work(item: int) -> None:
        registry.note(item)
        if item == 0:  # all of these while the stand-in is at it
            for number in range(1, many):
                loop.add(number)

    loop = make_duty(work)
    loop.add(0)

    wait_until(lambda: len(registry.items) == many)
    assert registry.items == list(range(many))
    assert OWN not in registry.threads[:MAX_INLINE]
    assert set(registry.threads[MAX_INLINE:]) == {OWN}


def test_what_a_stand_in_dies_of_our_own_thread_dies_of(
    make_duty: MakeDuty, registry: Book, errors: list[BaseException]
) -> None:
    def work(item: int) -> None:
        registry.note(item)
        if len(registry.items) == 1:
            raise OSError("injected")

    loop = make_duty(work)
    loop.add(7)

    wait_until(lambda: registry.items == [7, 7])
    wait_until(lambda: loop.is_up)
    assert [str(error) for error in errors] == ["injected"]
    assert registry.threads[1] == OWN


def test_who_was_called_and_never_came_is_replaced_when_somebody_looks(
    make_duty: MakeDuty, registry: Book
) -> None:
    loop = make_duty(registry.note, run_soon=lambda _: True)
    loop.add(1)
    loop.add(2)

    loop.call_again()

    wait_until(lambda: registry.items == [1, 2])


def test_an_add_that_was_interrupted_does_not_end_all_work(
    make_duty: MakeDuty, registry: Book
) -> None:
    calls: list[int] = []

    def interrupt_once(_: object) -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return False

    loop = make_duty(registry.note, run_soon=interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        loop.add(1)

    loop.call_again()
    wait_until(lambda: registry.items == [1])
    wait_until(lambda: loop._items.has_sleepers)
    loop.add(2)

    wait_until(lambda: registry.items == [1, 2])


def test_what_is_added_as_a_stand_in_finds_nothing_more_is_not_left(
    make_duty: MakeDuty, registry: Book
) -> None:
    loop = make_duty(registry.note)
    take, late = loop._items.take, list[int]()

    def take_and_be_late() -> int | None:
        item = take()
        if item is None and not late:
            late.append(2)
            loop.add(2)
        return item

    loop._items.take = take_and_be_late  # type: ignore[method-assign]

    loop.add(1)

    wait_until(lambda: registry.items == [1, 2])


@pytest.mark.parametrize("more", [(), (2, 3)])
def test_what_is_stopped_begins_nothing_new_and_waits_for_a_stand_in(
    make_duty: MakeDuty, registry: Book, more: Sequence[int]
) -> None:
    begun, waits = threading.Event(), list[bool]()

    def work(item: int) -> None:
        registry.note(item)
        begun.set()
        wait_until(lambda: loop._items.closed)
        stopping.join(0.3)
        waits.append(stopping.is_alive())

    loop = make_duty(work)
    stopping = threading.Thread(target=loop.stop)
    loop.add(1)
    begun.wait(10)
    for item in more:
        loop.add(item)

    stopping.start()
    stopping.join(10)

    assert waits == [True]
    assert registry.items == [1]


def test_a_stop_waits_only_so_long_for_work_that_hangs(
    make_duty: MakeDuty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.02)
    begun, go_on = threading.Event(), threading.Event()

    def hang(item: int) -> None:
        begun.set()
        go_on.wait(20)

    loop = make_duty(hang)
    loop.add(1)
    begun.wait(10)

    loop.stop()

    assert loop._items.closed
    go_on.set()


def test_what_is_worked_on_may_stop_it(make_duty: MakeDuty) -> None:
    ended: list[bool] = []

    def work(item: int) -> None:
        loop.stop()
        ended.append(loop._items.closed)

    loop = make_duty(work)
    loop.add(1)

    wait_until(lambda: ended == [True])


def test_racing_threads_never_leave_an_item_behind_nor_work_at_once(
    errors: list[BaseException],
) -> None:
    worker, worked = Worker(2), Counter[int]()
    inside, together = list[int](), list[int]()

    def work(item: int) -> None:
        inside.append(item)
        time.sleep(0)  # lets the others in, if they can come
        together.append(len(inside))
        worked[item] += 1
        inside.remove(item)

    def add(start: int) -> None:
        never = threading.Event()
        for number in range(start, start + 150):
            (loop.add if number % 5 else loop.add_rest)(number)
            if number % 3 == 0:
                never.wait(0.0005)  # long enough for all to fall asleep

    with interleaved(module, ready_module):
        worker.start()
        loop = DispatchLoop(OWN, work, on_error=errors.append, run_soon=worker.run_soon)
        loop.start()
        run_threads(*(partial(add, start) for start in (0, 1000, 2000)))
        wait_until(lambda: len(worked) == 450)
    loop.stop()
    worker.stop(5)

    assert set(worked.values()) == set(together) == {1}
    assert not errors


# ------------------------------------------------------------------- on a whole bus


def watch_offers(broker: Broker, consumer: str) -> list[str]:
    """Note by which thread each delivery is given to the consumer."""
    subscription: Any = broker._current_runtime().subscription(consumer)
    offer, threads = subscription.offer, list[str]()

    def noted(*args: Any) -> None:
        threads.append(threading.current_thread().name)
        offer(*args)

    subscription.offer = noted
    return threads


def wait_until_asleep(broker: Broker) -> None:
    life: Any = broker._current_runtime()
    wait_until(lambda: len(life._worker._ready._sleepers) == life._worker.threads)
    wait_until(lambda: life.backend._dispatcher.loop._items.has_sleepers)


def has(items: Sequence[object], count: int) -> bool:
    return len(items) == count


def test_a_message_that_comes_alone_is_dispatched_and_handled_by_one_thread(
    make_broker: MakeBroker,
) -> None:
    broker, handlers = make_broker(threads=4), list[str]()
    broker.consume(
        "a.b", lambda _: handlers.append(threading.current_thread().name), name="c"
    )
    broker.start()
    offers = watch_offers(broker, "c")

    for count in range(1, 6):
        wait_until_asleep(broker)
        broker.publish(Message("a.b"))
        wait_until(partial(has, handlers, count))

    assert offers == handlers


def test_while_every_handler_thread_is_busy_messages_are_still_dispatched(
    make_broker: MakeBroker,
) -> None:
    go_on = threading.Event()
    broker = make_broker(threads=1)
    broker.consume("a.b", lambda _: go_on.wait(10), name="slow")
    broker.start()
    offers = watch_offers(broker, "slow")
    wait_until_asleep(broker)
    for _ in range(3):
        broker.publish(Message("a.b"))
        wait_until(lambda: broker.stats().queues["a.b"].depth == 0)

    assert offers[1:] == ["gomq-memory-dispatcher"] * 2
    go_on.set()
    wait_until_settled(broker)


def test_an_errand_that_fails_is_reported_and_ends_no_thread() -> None:
    def fail() -> None:
        raise OSError("injected")

    recorder = Recorder()
    worker = Worker(2, hooks=Hooks([recorder]))
    worker.start()
    wait_until(lambda: worker.run_soon(fail))
    wait_until(lambda: recorder.named("failed"))
    wait_until(lambda: len(worker._ready._sleepers) == 2)

    assert worker.alive == 2
    assert not worker._ready.expects_caller
    worker.stop(5)


def test_what_an_errand_makes_ready_is_served_by_its_own_thread(worker: Worker) -> None:
    threads: list[int] = []
    ready: ReadyQueue[Any] = worker._ready

    def note() -> None:
        threads.append(threading.get_ident())

    def lead_on() -> None:
        note()
        ready.add(note)
        assert not any(not sleeper.locked() for sleeper in list(ready._sleepers))

    assert worker.run_soon(lead_on)

    wait_until(lambda: len(threads) == 2)
    assert threads[0] == threads[1]


class Resting(Environment):
    """Counts how often a thread said that it has nothing to do."""

    def __init__(self) -> None:
        self.rests = 0

    def thread_idle(self) -> None:
        self.rests += 1


def test_a_thread_that_only_runs_errands_is_idle_for_the_host(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.worker.worker.IDLE_SECONDS", 0.1)
    environment = Resting()
    worker = Worker(1, environment=environment)
    broker = make_broker(get_worker=lambda: worker)
    broker.consume("a.b", lambda _: None, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    def run_errand_and_look() -> int:
        worker.run_soon(lambda: None)
        return environment.rests

    wait_until(run_errand_and_look)

    assert environment.rests == 1
    worker.stop(5)
