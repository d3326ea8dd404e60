from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_gomq.bus.process import timers as module
from django_gomq.bus.process.fork import is_bus_thread
from django_gomq.bus.process.timers import Timers
from tests.bus.waiting import LONG, wait_until

Errors = deque[BaseException]


@pytest.fixture
def errors() -> Errors:
    return deque()


@pytest.fixture
def timers(errors: Errors) -> Iterator[Timers]:
    timers = Timers(errors.append)
    yield timers
    timers.stop()


@pytest.fixture
def _fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.001)


def thread_of(timers: Timers) -> threading.Thread:
    assert timers._thread is not None
    return timers._thread


def flush(timers: Timers) -> None:
    """Return when all that was due has run."""
    done = threading.Event()
    timers.after(0, done.set)
    assert done.wait(LONG)


def stop_clock(patch: pytest.MonkeyPatch) -> None:
    """Stop the clock for this module, not for threads of others."""
    now = time.monotonic()
    patch.setattr(module, "Clock", SimpleNamespace(monotonic=lambda: now))


def is_asleep(timers: Timers) -> bool:
    waiters: Any = timers._changed
    return bool(waiters._waiters)


def test_calls_run_when_they_are_due(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    with monkeypatch.context() as patch:
        stop_clock(patch)
        timers.after(0.002, lambda: ran.append("later"))
        timers.after(0.001, lambda: ran.append("soon"))
        timers.after(0.003, lambda: ran.append("last"))

    timers.start()
    wait_until(lambda: len(ran) == 3)

    assert ran == ["soon", "later", "last"]


def test_a_call_that_is_not_due_waits(timers: Timers) -> None:
    ran: list[str] = []
    timers.after(60, lambda: ran.append("later"))
    timers.start()

    flush(timers)

    assert ran == []


def test_calls_of_one_moment_run_in_their_order(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    with monkeypatch.context() as patch:
        stop_clock(patch)
        for number in range(20):
            timers.after(0, lambda number=number: ran.append(number))  # type: ignore[misc]

    timers.start()
    flush(timers)

    assert ran == list(range(20))


def test_an_earlier_call_wakes_the_thread(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 1e6)
    timers.after(1e5, lambda: None)
    timers.start()
    wait_until(lambda: is_asleep(timers))

    flush(timers)


def test_calls_run_on_a_thread_of_the_bus(timers: Timers) -> None:
    where: list[tuple[bool, threading.Thread]] = []
    timers.after(0, lambda: where.append((is_bus_thread(), threading.current_thread())))

    timers.start()
    wait_until(lambda: where)

    assert where == [(True, thread_of(timers))]


def test_the_thread_keeps_no_program_from_its_end(timers: Timers) -> None:
    timers.start()

    assert thread_of(timers).daemon


def test_it_starts_once(timers: Timers) -> None:
    timers.start()
    thread = thread_of(timers)

    timers.start()

    assert thread_of(timers) is thread


def test_an_error_is_reported_and_the_thread_goes_on(
    timers: Timers, errors: Errors
) -> None:
    error = ValueError("no")

    def fail() -> None:
        raise error

    timers.after(0, fail)
    timers.start()
    flush(timers)

    assert list(errors) == [error]


@pytest.mark.usefixtures("_fast_ticks")
def test_a_regular_call_runs_again_and_again(timers: Timers) -> None:
    ran: list[int] = []
    timers.every_second(lambda: ran.append(1))

    timers.start()

    wait_until(lambda: len(ran) >= 5)


@pytest.mark.usefixtures("_fast_ticks")
def test_a_cancelled_call_runs_no_more(timers: Timers) -> None:
    ran: list[str] = []

    def cancelled() -> None:
        ran.append("cancelled")

    timers.every_second(cancelled)
    timers.every_second(lambda: ran.append("other"))
    timers.start()
    wait_until(lambda: "cancelled" in ran)

    timers.cancel(cancelled)
    flush(timers)
    ran.clear()

    wait_until(lambda: len(ran) >= 5)
    assert "cancelled" not in ran


@pytest.mark.usefixtures("_fast_ticks")
def test_a_regular_call_that_fails_runs_again(timers: Timers, errors: Errors) -> None:
    def fail() -> None:
        raise ValueError

    timers.every_second(fail)

    timers.start()

    wait_until(lambda: len(errors) >= 3)


def test_an_idle_thread_wakes_once_a_second() -> None:
    assert module.TICK_SECONDS == 1.0


def test_a_regular_call_does_not_run_at_once(
    timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 1e6)
    ran: list[int] = []
    timers.every_second(lambda: ran.append(1))
    timers.start()

    flush(timers)

    assert ran == []


def test_a_thread_that_dies_with_the_lock_is_followed_by_one_that_has_it() -> None:
    class Dying(Timers):
        has_died = False

        def _call_what_is_due(self) -> None:
            if not self.has_died:
                self.has_died = True
                self._changed.acquire()
                raise SystemExit
            super()._call_what_is_due()

    errors = Errors()
    ran = threading.Event()
    timers = Dying(errors.append)
    timers.start()
    wait_until(lambda: errors)

    timers.after(0.001, ran.set)

    assert ran.wait(LONG)
    assert isinstance(errors[0], SystemExit)
    timers.stop()


def test_a_stop_ends_the_thread(timers: Timers) -> None:
    timers.start()
    wait_until(lambda: is_asleep(timers))

    timers.stop()
    timers.stop()

    thread_of(timers).join(LONG)
    assert not thread_of(timers).is_alive()


def test_what_is_not_due_at_the_stop_is_forgotten(timers: Timers) -> None:
    timers.after(60, lambda: None)

    timers.stop()

    assert timers._heap == []


def test_what_was_stopped_does_not_start_again(timers: Timers) -> None:
    timers.stop()

    timers.start()

    assert timers._thread is None


def test_a_call_may_stop_its_own_thread(timers: Timers, errors: Errors) -> None:
    timers.after(0, timers.stop)

    timers.start()
    thread_of(timers).join(LONG)

    assert not thread_of(timers).is_alive()
    assert not errors
