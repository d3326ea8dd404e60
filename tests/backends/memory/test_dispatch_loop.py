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
from django_gomq.bus.message import Message
from django_gomq.bus.worker import ready_queue as ready_module
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.interleaving import interleaved
from tests.bus.waiting import LONG, run_threads, wait_until, wait_until_settled

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
def book() -> Book:
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


MakeLoop = Callable[..., DispatchLoop[int]]


@pytest.fixture
def make_loop(worker: Worker, errors: list[BaseException]) -> Iterator[MakeLoop]:
    """Makes one whose own thread sleeps, and which may have errands run."""
    made: list[DispatchLoop[int]] = []

    def make(work: Callable[[int], None], **options: Any) -> DispatchLoop[int]:
        loop = DispatchLoop(OWN, work, on_error=errors.append)
        loop.start(options.get("run_soon", worker.run_soon))
        wait_until(lambda: loop._items.has_sleepers)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        loop.stop()


def test_an_idle_handler_thread_stands_in_for_our_own(
    make_loop: MakeLoop, book: Book
) -> None:
    make_loop(book.note).add(1)

    wait_until(lambda: book.items == [1])
    assert book.threads[0].startswith("gomq-handler")


def test_without_an_idle_handler_thread_our_own_works(
    make_loop: MakeLoop, book: Book
) -> None:
    make_loop(book.note, run_soon=lambda _: False).add(1)

    wait_until(lambda: book.items == [1])
    assert book.threads == [OWN]


def test_the_rest_of_a_flood_is_for_our_own_thread(
    make_loop: MakeLoop, book: Book
) -> None:
    make_loop(book.note).add_rest(1)

    wait_until(lambda: book.items == [1])
    assert book.threads == [OWN]


def test_a_stand_in_leaves_a_long_list_to_our_own_thread(
    make_loop: MakeLoop, book: Book
) -> None:
    many = 3 * MAX_INLINE

    def work(item: int) -> None:
        book.note(item)
        if item == 0:  # all of these while the stand-in is at it
            for number in range(1, many):
                loop.add(number)

    loop = make_loop(work)
    loop.add(0)

    wait_until(lambda: len(book.items) == many)
    assert book.items == list(range(many))
    assert OWN not in book.threads[:MAX_INLINE]
    assert set(book.threads[MAX_INLINE:]) == {OWN}


def test_what_a_stand_in_dies_of_our_own_thread_dies_of(
    make_loop: MakeLoop, book: Book, errors: list[BaseException]
) -> None:
    def work(item: int) -> None:
        book.note(item)
        if len(book.items) == 1:
            raise OSError("injected")

    loop = make_loop(work)
    loop.add(7)

    wait_until(lambda: book.items == [7, 7])
    wait_until(lambda: loop.is_up)
    assert [str(error) for error in errors] == ["injected"]
    assert book.threads[1] == OWN


def test_who_was_called_and_never_came_is_replaced_when_somebody_looks(
    make_loop: MakeLoop, book: Book
) -> None:
    loop = make_loop(book.note, run_soon=lambda _: True)
    loop.add(1)
    loop.add(2)

    loop.call_again()

    wait_until(lambda: book.items == [1, 2])


def test_an_add_that_was_interrupted_does_not_end_all_work(
    make_loop: MakeLoop, book: Book
) -> None:
    calls: list[int] = []

    def interrupt_once(_: object) -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return False

    loop = make_loop(book.note, run_soon=interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        loop.add(1)

    loop.call_again()
    wait_until(lambda: book.items == [1])
    wait_until(lambda: loop._items.has_sleepers)
    loop.add(2)

    wait_until(lambda: book.items == [1, 2])


def test_what_is_added_as_a_stand_in_finds_nothing_more_is_not_left(
    make_loop: MakeLoop, book: Book
) -> None:
    loop = make_loop(book.note)
    take, late = loop._items.take, list[int]()

    def take_and_be_late() -> int | None:
        item = take()
        if item is None and not late:
            late.append(2)
            loop.add(2)
        return item

    loop._items.take = take_and_be_late  # type: ignore[method-assign]

    loop.add(1)

    wait_until(lambda: book.items == [1, 2])


@pytest.mark.parametrize("more", [(), (2, 3)])
def test_what_is_stopped_begins_nothing_new_and_waits_for_a_stand_in(
    make_loop: MakeLoop, book: Book, more: Sequence[int]
) -> None:
    begun, waits = threading.Event(), list[bool]()

    def work(item: int) -> None:
        book.note(item)
        begun.set()
        wait_until(lambda: loop._items.closed)
        stopping.join(0.3)
        waits.append(stopping.is_alive())

    loop = make_loop(work)
    stopping = threading.Thread(target=loop.stop)
    loop.add(1)
    begun.wait(LONG)
    for item in more:
        loop.add(item)

    stopping.start()
    stopping.join(LONG)

    assert waits == [True]
    assert book.items == [1]


def test_a_stop_waits_only_so_long_for_work_that_hangs(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.02)
    begun, go_on = threading.Event(), threading.Event()

    def hang(item: int) -> None:
        begun.set()
        go_on.wait(LONG)

    loop = make_loop(hang)
    loop.add(1)
    begun.wait(LONG)

    loop.stop()

    assert loop._items.closed
    go_on.set()


def test_what_is_worked_on_may_stop_it(make_loop: MakeLoop) -> None:
    ended: list[bool] = []

    def work(item: int) -> None:
        loop.stop()
        ended.append(loop._items.closed)

    loop = make_loop(work)
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
        loop = DispatchLoop(OWN, work, on_error=errors.append)
        loop.start(worker.run_soon)
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

    def is_done_by_one_thread() -> bool:
        wait_until_asleep(broker)
        count = len(handlers) + 1
        broker.publish(Message("a.b"))
        wait_until(partial(has, handlers, count))
        return offers[-1:] == handlers[-1:]

    # On a busy machine another thread may be faster, now and then.
    wait_until(is_done_by_one_thread)


def test_while_every_handler_thread_is_busy_messages_are_still_dispatched(
    make_broker: MakeBroker,
) -> None:
    go_on = threading.Event()
    broker = make_broker(threads=1)
    broker.consume("a.b", lambda _: go_on.wait(LONG), name="slow")
    broker.start()
    offers = watch_offers(broker, "slow")
    wait_until_asleep(broker)
    for _ in range(3):
        broker.publish(Message("a.b"))
        wait_until(lambda: broker.stats().queues["a.b"].depth == 0)

    assert offers[1:] == ["gomq-memory-dispatcher"] * 2
    go_on.set()
    wait_until_settled(broker)


def test_a_start_that_fails_leaves_it_down_and_may_be_tried_again(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop = DispatchLoop(OWN, book.note, on_error=print)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            loop.start()
    was_up = loop.is_up

    loop.start()
    loop.add(1)

    wait_until(lambda: book.items == [1])
    assert (was_up, loop.is_up) == (False, True)
    loop.stop()
