from __future__ import annotations

import threading

import pytest

from django_gomq.bus.process import fork as threads
from django_gomq.bus.process.fork import claim_thread, is_bus_thread
from django_gomq.bus.process.interrupts import run_shielded
from tests.bus.waiting import run_threads


def test_a_thread_of_the_program_is_not_of_the_bus() -> None:
    found: list[bool] = []

    run_threads(lambda: found.append(is_bus_thread()))

    assert found == [False]


def test_a_claimed_thread_is_of_the_bus() -> None:
    found: list[bool] = []

    def claim() -> None:
        claim_thread()
        found.append(is_bus_thread())

    run_threads(claim)

    assert found == [True]


def test_a_claim_is_for_one_thread() -> None:
    run_threads(claim_thread)

    assert not is_bus_thread()


def test_where_the_interpreter_ends_the_main_thread_does_its_work_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_end", threading.Event())
    ran_on: list[threading.Thread] = []

    run_shielded(lambda: ran_on.append(threading.current_thread()))
    threads.start_no_more()
    run_shielded(lambda: ran_on.append(threading.current_thread()))

    assert [one is threading.main_thread() for one in ran_on] == [False, True]


def test_where_no_thread_can_be_started_the_main_thread_does_its_work_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    ran_on: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)

    run_shielded(lambda: ran_on.append(threading.current_thread()))

    assert ran_on == [threading.main_thread()]


def test_what_runs_whole_raises_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_shielded(fail)
