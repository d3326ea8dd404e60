from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.process import fork as process
from django_gomq.bus.process.fork import Process
from tests.bus.conftest import MakeBroker
from tests.bus.waiting import LONG, run_threads, wait_until, wait_until_settled

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns in a forked child; kill it at the deadline."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # 3.12: "may lead to deadlocks": it must not
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - the parent fails for it
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], LONG)
        assert ready, "the child hangs"
        answer = pickle.loads(os.read(reader, 65536))
        wait_until(lambda: os.waitid(os.P_PID, pid, GONE | os.WNOWAIT))
        return answer
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)


GONE = os.WEXITED | os.WNOHANG


def test_a_child_does_not_deliver_its_parents_backlog(broker: Broker) -> None:
    handled: list[Any] = []
    broker.consume("a.b", lambda m: handled.append(m.data), name="c")
    broker.pause("c")
    for _ in range(3):
        broker.publish(Message("a.b", b'"parent"'))
    wait_until(lambda: broker.stats().consumers["c"].depth == 3)

    def work() -> list[Any]:
        broker.publish(Message("a.b", b'"child"'))
        broker.close()
        return handled

    assert in_child(work) == ["child"]


def test_a_child_starts_threads_of_its_own_at_its_first_publish(broker: Broker) -> None:
    handled: list[int] = []
    broker.consume("a.b", lambda _: handled.append(os.getpid()), name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    def work() -> tuple[int, bool]:
        alone = threading.active_count()
        broker.publish(Message("a.b"))
        wait_until(lambda: len(handled) == 2)
        return alone, handled[1] == os.getpid()

    assert in_child(work) == (1, True)


def test_the_counts_of_a_child_start_at_zero(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    def work() -> tuple[int, bool]:
        stats = broker.stats()
        return sum(stats.consumers["c"].dispatched.values()), stats.started

    assert in_child(work) == (0, False)


def test_a_child_is_not_held_up_by_locks_that_its_parent_held(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c")
    broker.publish(Message("a.b"))
    wait_until_settled(broker)
    life = broker._current_runtime()
    subscription = life.subscription("c")
    holding, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with (
            process.current().lock,
            subscription.counts.lock,
            subscription.channel._lock,
            life.backend._dispatcher._lock,  # type: ignore[attr-defined]
            life._worker.timers._changed,
        ):
            holding.set()
            go_on.wait(LONG)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(LONG)

    def work() -> int:
        broker.publish(Message("a.b"))
        broker.close()
        return broker.stats().consumers["c"].succeeded

    try:
        assert in_child(work) == 1
    finally:
        go_on.set()
        holder.join()


def test_a_child_of_a_closed_parent_may_run(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c")
    broker.close()

    def work() -> int:
        broker.publish(Message("a.b"))
        broker.close()
        return broker.stats().consumers["c"].succeeded

    assert in_child(work) == 1


def test_a_grandchild_is_a_process_of_its_own(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c")
    broker.start()

    def work() -> Any:
        broker.start()
        return in_child(
            lambda: (broker.is_started, process.current().pid == os.getpid())
        )

    assert in_child(work) == (False, True)


def test_a_parent_goes_on_as_before(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c")
    broker.publish(Message("a.b"))

    in_child(lambda: broker.publish(Message("a.b")))
    broker.publish(Message("a.b"))

    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 2


def test_a_broker_that_is_gone_is_told_of_no_fork() -> None:
    told: list[str] = []

    class Listening(Broker):
        def after_in_child(self, process: Process) -> None:
            told.append(self.alias)
            super().after_in_child(process)

    there = Listening(MemoryBackend, "there")
    gone = weakref.ref(Listening(MemoryBackend, "gone"))
    wait_until(lambda: gc.collect() >= 0 and gone() is None)

    def work() -> set[str]:
        process.current()
        return set(told)

    assert in_child(work) == {there.alias}


def test_racing_threads_of_a_fresh_child_are_one_process(broker: Broker) -> None:
    broker.start()

    def work() -> int:
        found: list[int] = []
        run_threads(*[lambda: found.append(id(process.current()))] * 20)
        return len(set(found))

    assert in_child(work) == 1


def test_fifty_racing_publishers_start_one_worker(make_broker: MakeBroker) -> None:
    broker = make_broker()
    handled: list[int] = []
    broker.consume("a.b", lambda _: handled.append(1), name="c")
    before = set(threading.enumerate())

    run_threads(*[lambda: broker.publish(Message("a.b"))] * 50)
    wait_until(lambda: len(handled) == 50)

    # Eight handlers, the timers, the housekeeping and the dispatcher.
    wait_until(lambda: len(set(threading.enumerate()) - before) == 11)


def test_ids_of_a_parent_and_its_child_differ() -> None:
    def make() -> list[str]:
        return [Message("a.b", made=1.0).id for _ in range(100)]

    theirs = in_child(make)  # of the same moment, counted from the same number

    assert not set(theirs) & set(make())


def test_a_message_that_is_sent_to_another_process_keeps_its_id() -> None:
    message: Message[Any] = Message("a.b")
    sent = pickle.dumps(message)  # as a pool of processes does

    def work() -> tuple[str, str]:
        found: Message[Any] = pickle.loads(sent)
        return found.id, pickle.loads(pickle.dumps(found)).id

    assert in_child(work) == (message.id, message.id)


def test_without_a_page_that_the_kernel_wipes_the_pid_tells() -> None:
    is_same_process = process._PidPage()

    before = is_same_process[0]
    is_same_process[0] = 1

    assert (before, is_same_process[0]) == (False, True)
    assert in_child(lambda: is_same_process[0]) is False


@pytest.mark.parametrize("error", [OSError, ValueError, AttributeError])
def test_a_kernel_that_cannot_wipe_pages_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("django_gomq.bus.process.fork.mmap.mmap", refuse)

    assert isinstance(process._make_page(), process._PidPage)


def test_a_thread_that_comes_second_finds_the_life_that_was_begun(
    broker: Broker,
) -> None:
    first = broker._begin(process.current())

    assert broker._begin(process.current()) is first
