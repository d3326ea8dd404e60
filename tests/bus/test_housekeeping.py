from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextvars import Context, ContextVar
from threading import Event, Thread
from typing import Any

import pytest

from django_gomq.bus.errors import NoConsumerError
from django_gomq.bus.message import Message
from django_gomq.bus.process import fork
from django_gomq.bus.process.fork import is_bus_thread
from django_gomq.bus.process.housekeeping import Housekeeping, write_log
from django_gomq.bus.worker.worker import Worker
from tests.bus.conftest import MakeBroker
from tests.bus.forking import in_child
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, fast_switching, run_threads, wait_until

NAME = "gomq-housekeeping"


@pytest.fixture
def housekeeping() -> Iterator[Housekeeping]:
    made = Housekeeping(most=100)
    yield made
    made.stop(LONG)


@pytest.fixture
def go_on() -> Iterator[Event]:
    """Lets a call that blocks go on, at the latest at the end of the test."""
    event = Event()
    yield event
    event.set()


def block(housekeeping: Housekeeping, go_on: Event) -> None:
    """Have it be in a call that waits for this."""
    entered = Event()

    def wait() -> None:
        entered.set()
        go_on.wait(LONG)

    housekeeping.hand_over(wait)
    assert entered.wait(LONG)


def alive() -> set[Thread]:
    return {thread for thread in threading.enumerate() if thread.name == NAME}


def refuse_threads(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def refuse(thread: Thread) -> None:
        raise error

    monkeypatch.setattr(Thread, "start", refuse)


def test_nothing_starts_before_the_first_call(housekeeping: Housekeeping) -> None:
    before = alive()

    assert housekeeping.flush(0)

    assert alive() <= before
    assert not housekeeping.is_dead


def test_calls_run_in_their_order_on_one_thread_of_the_bus(
    housekeeping: Housekeeping,
) -> None:
    ran: list[tuple[int, str, bool]] = []

    def note(number: int) -> None:
        ran.append((number, threading.current_thread().name, is_bus_thread()))

    for number in range(50):
        assert housekeeping.hand_over(lambda number=number: note(number))  # type: ignore[misc]

    assert housekeeping.flush(LONG)
    assert ran == [(number, NAME, True) for number in range(50)]


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_what_a_call_raises_is_counted_and_reaches_nobody(
    housekeeping: Housekeeping, error: BaseException
) -> None:
    ran: list[int] = []

    def fail() -> None:
        raise error

    housekeeping.hand_over(fail)
    housekeeping.hand_over(lambda: ran.append(1))

    assert housekeeping.flush(LONG)
    assert ran == [1]
    assert (housekeeping.failed, housekeeping.lost, housekeeping.errors) == (1, 0, 1)


def test_what_finds_no_room_is_counted_and_nobody_waits(
    housekeeping: Housekeeping, go_on: Event
) -> None:
    block(housekeeping, go_on)
    ran: list[int] = []

    taken = [housekeeping.hand_over(lambda: ran.append(1)) for _ in range(150)]

    go_on.set()
    assert housekeeping.flush(LONG)
    assert taken == [True] * 100 + [False] * 50
    assert (len(ran), housekeeping.lost, housekeeping.errors) == (100, 50, 50)


def test_a_flush_waits_no_longer_than_it_was_told(
    housekeeping: Housekeeping, go_on: Event
) -> None:
    block(housekeeping, go_on)

    assert not housekeeping.flush(0.01)

    go_on.set()
    wait_until(lambda: housekeeping.flush(LONG))


def test_a_second_flush_does_not_wait_for_what_still_hangs(
    housekeeping: Housekeeping, go_on: Event
) -> None:
    block(housekeeping, go_on)
    housekeeping.flush(0.01)

    assert not housekeeping.flush(LONG * 10)


def test_a_call_may_flush_and_stop_without_waiting_for_itself(
    housekeeping: Housekeeping,
) -> None:
    answers: list[bool] = []

    housekeeping.hand_over(lambda: answers.append(housekeeping.flush(LONG)))
    housekeeping.hand_over(lambda: answers.append(housekeeping.stop(LONG)))

    wait_until(lambda: answers == [False, False])


def test_after_a_stop_the_thread_is_gone_and_comes_back_for_a_call(
    housekeeping: Housekeeping,
) -> None:
    before, ran = alive(), list[str]()
    housekeeping.hand_over(lambda: None)
    assert housekeeping.stop(LONG)
    assert housekeeping.stop(LONG)
    wait_until(lambda: alive() <= before)

    housekeeping.hand_over(lambda: ran.append(threading.current_thread().name))

    wait_until(lambda: ran == [NAME])
    wait_until(lambda: alive() <= before)


def test_what_is_handed_over_while_the_thread_ends_is_run(
    housekeeping: Housekeeping,
) -> None:
    housekeeping.stop(0)
    ran: list[int] = []

    def hand_over() -> None:
        for _ in range(25):
            housekeeping.hand_over(lambda: ran.append(1))
            wait_until(lambda: not housekeeping._calls)

    with fast_switching():
        run_threads(hand_over, hand_over, hand_over)

    wait_until(lambda: len(ran) == 75)


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError(), OSError(11)]
)
def test_a_thread_that_cannot_be_had_is_tried_again(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    ran: list[int] = []
    with monkeypatch.context() as shortage:
        refuse_threads(shortage, error)
        assert housekeeping.hand_over(lambda: ran.append(1))
        assert housekeeping.is_dead
    assert ran == []

    housekeeping.hand_over(lambda: ran.append(2))

    assert housekeeping.flush(LONG)
    assert ran == [1, 2]
    assert not housekeeping.is_dead


def test_what_waits_for_a_thread_gets_one_without_another_call(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Event()
    with monkeypatch.context() as shortage:
        refuse_threads(shortage, RuntimeError("can't start new thread"))
        housekeeping.hand_over(ran.set)
        assert housekeeping.is_dead

    housekeeping.revive()

    assert ran.wait(LONG)
    assert not housekeeping.is_dead


def test_an_exception_of_a_signal_handler_leaves_the_start_to_the_next(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    with monkeypatch.context() as shortage:
        refuse_threads(shortage, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            housekeeping.hand_over(lambda: ran.append(1))

    housekeeping.hand_over(lambda: ran.append(2))

    assert housekeeping.flush(LONG)
    assert ran == [1, 2]


def test_where_no_thread_can_be_had_a_flush_runs_what_is_left(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def fail() -> None:
        raise SystemExit

    monkeypatch.setattr(fork, "_end", Event())
    fork.start_no_more()
    housekeeping.hand_over(fail)
    housekeeping.hand_over(lambda: ran.append(threading.current_thread().name))

    assert housekeeping.flush(LONG)
    assert ran == [threading.current_thread().name]
    assert housekeeping.failed == 1


def test_a_flush_that_runs_it_itself_stops_at_its_limit(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork, "_end", Event())
    fork.start_no_more()
    ran: list[int] = []
    housekeeping.hand_over(lambda: ran.append(1))

    assert not housekeeping.flush(-1)
    assert ran == []


def test_after_the_stop_what_no_thread_can_run_runs_at_once(
    housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeeping.stop(LONG)
    monkeypatch.setattr(fork, "_end", Event())
    fork.start_no_more()
    ran: list[int] = []

    def run_another() -> None:
        housekeeping.hand_over(lambda: ran.append(2))  # by whoever runs us
        ran.append(1)

    housekeeping.hand_over(run_another)

    assert ran == [1, 2]


def test_many_threads_start_one(housekeeping: Housekeeping) -> None:
    before, ran = alive(), list[Any]()

    def hand_over() -> None:
        for _ in range(20):
            housekeeping.hand_over(lambda: ran.append(threading.current_thread()))

    with fast_switching():
        run_threads(hand_over, hand_over, hand_over, hand_over)

    assert housekeeping.flush(LONG)
    assert len(ran) == 80
    assert len(set(ran)) == 1
    assert len(alive() - before) == 1


def test_a_call_handed_over_while_another_thread_starts_ours_waits_for_nobody(
    housekeeping: Housekeeping,
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(housekeeping._starting)  # as if it were in the midst of it
        assert housekeeping.hand_over(lambda: None)
        assert housekeeping.is_dead

    assert housekeeping.flush(LONG)


def test_a_call_that_comes_when_the_thread_has_looked_its_last_is_run(
    housekeeping: Housekeeping,
) -> None:
    class Late(deque[Any]):
        """Seems empty, once, to the thread that works it off."""

        seen_empty = False

        def __bool__(self) -> bool:
            if threading.current_thread().name == NAME and not self.seen_empty:
                self.seen_empty = True
                return False
            return len(self) > 0

    ran: list[int] = []
    housekeeping.stop(0)
    housekeeping._calls = Late()

    housekeeping.hand_over(lambda: ran.append(1))

    wait_until(lambda: ran == [1])


def test_a_thread_that_came_meanwhile_is_not_started_twice(
    housekeeping: Housekeeping,
) -> None:
    housekeeping.hand_over(lambda: None)
    thread = housekeeping._thread

    assert housekeeping._start()

    assert housekeeping._thread is thread


def lines_of_test(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "gomq.test"]


def test_a_line_below_the_level_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "gomq.test")

    write_log(logging.getLogger("gomq.test"), logging.WARNING, "a line")

    assert lines_of_test(caplog) == []


@pytest.mark.parametrize(
    "odd", ["a\nb", "\x1b[31m", "\0", "\r", "\x85", "\u2028", "\u202e", "\ud800"]
)
def test_no_text_breaks_its_line_or_speaks_to_a_terminal(
    caplog: pytest.LogCaptureFixture, odd: str
) -> None:
    logger = logging.getLogger("gomq.test")

    write_log(logger, logging.WARNING, "%s: %s", odd, OSError(odd), fields={"f": odd})

    [record] = lines_of_test(caplog)
    told: Any = record
    assert record.getMessage().isprintable()
    assert told.f.isprintable()


def test_a_line_is_short_whatever_it_is_told_and_numbers_stay_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("gomq.test")

    write_log(logger, logging.WARNING, "%s %d %.1f", "x" * 100_000, 7, 0.5)

    [record] = lines_of_test(caplog)
    assert len(record.getMessage()) < 1_100
    assert record.getMessage().endswith("x... 7 0.5")


def test_a_token_that_another_gave_meanwhile_is_no_trouble(
    housekeeping: Housekeeping,
) -> None:
    class Slow:
        """A lock that another caller releases between our two looks."""

        def locked(self) -> bool:
            return True

        def release(self) -> None:
            raise RuntimeError("release unlocked lock")

    token: Any = housekeeping._token
    housekeeping._token = Slow()  # type: ignore[assignment]

    housekeeping._release_token()

    housekeeping._token = token


def test_a_call_that_another_thread_took_is_no_trouble(
    housekeeping: Housekeeping,
) -> None:
    housekeeping._run_next()

    assert housekeeping.errors == 0


@pytest.mark.parametrize("name", ["gomq-timers", "gomq-handler-1", "gomq-loop"])
def test_lines_of_threads_of_the_bus_are_written_here(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    worker, came_from = Worker(1), list[str]()

    def tell(*_: object) -> None:
        came_from.append(threading.current_thread().name)
        write_log(logging.getLogger("gomq.test"), logging.WARNING, "a line")

    async def tell_async(message: object) -> None:
        tell()

    broker = make_broker(get_worker=lambda: worker)
    broker.consume("a.b", tell_async if name == "gomq-loop" else tell, name="c")
    broker.start()
    if name == "gomq-timers":
        worker.timers.after(0, tell)
    else:
        broker.publish(Message("a.b"))

    wait_until(lambda: came_from == [name])
    wait_until(lambda: lines_of_test(caplog))
    worker.stop(timeout=LONG)
    assert [record.threadName for record in lines_of_test(caplog)] == [NAME]


def test_a_forked_child_has_one_of_its_own(
    make_broker: MakeBroker, go_on: Event
) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    parents = broker.hooks.housekeeping
    assert parents is not None
    block(parents, go_on)

    def refuse() -> tuple[bool, list[Any]]:
        with contextlib.suppress(NoConsumerError):
            broker.publish(Message("a.b"))
        return broker.hooks.flush(LONG), recorder.named("unconsumed")

    assert in_child(refuse) == (True, ["a.b"])
    assert recorder.calls == deque()


REQUEST: ContextVar[str] = ContextVar("request")


def test_hooks_hear_in_the_context_in_which_it_happened(
    make_broker: MakeBroker,
) -> None:
    class Asking(Recorder):
        def unconsumed(self, broker: str, event: str) -> None:
            self.calls.append(("request", REQUEST.get("none")))

    recorder = Asking()
    broker = make_broker(hooks=[recorder])

    def publish() -> None:
        REQUEST.set("one")
        with contextlib.suppress(NoConsumerError):
            broker.publish(Message("a.b"))

    Context().run(publish)

    assert recorder.named("request") == ["one"]
