from __future__ import annotations

import gc
import os
import threading
from collections import deque

import pytest

from django_gomq.bus.process import fork as process
from django_gomq.bus.process.fork import Process, current, register
from tests.bus.forking import in_child
from tests.bus.waiting import LONG, fast_switching, run_threads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Resident:
    """A aware that notes the processes it was told of."""

    def __init__(self) -> None:
        self.entered: deque[Process] = deque()
        register(self)

    def after_in_child(self, process: Process) -> None:
        self.entered.append(process)


@pytest.fixture
def by_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no page that the kernel wipes."""
    is_same_process = process._PidPage()
    is_same_process[0] = 1
    monkeypatch.setattr(process, "is_same_process", is_same_process)


def test_a_process_is_one_all_along() -> None:
    assert current() is current()
    assert current().pid == os.getpid()


def test_all_threads_of_a_process_see_one() -> None:
    found: deque[Process] = deque()

    run_threads(*[lambda: found.append(current())] * 5)

    assert set(found) == {current()}


def test_a_child_is_another_process() -> None:
    parent = current()

    def work() -> tuple[bool, bool, bool]:
        child = current()
        return child is parent, child.pid == os.getpid(), child is current()

    assert in_child(work) == (False, True, True)


def test_a_child_has_a_lock_that_its_parent_does_not_hold() -> None:
    holding, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with current().lock:
            holding.set()
            go_on.wait(LONG)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(LONG)
    try:
        assert in_child(lambda: current().lock.acquire(blocking=False))
    finally:
        go_on.set()
        holder.join()


def test_citizens_are_told_of_the_child_they_are_in() -> None:
    resident = Resident()

    def work() -> tuple[int, bool]:
        child = current()
        current()
        return len(resident.entered), resident.entered[0] is child

    assert in_child(work) == (1, True)


def test_citizens_of_the_parent_are_told_nothing() -> None:
    resident = Resident()

    in_child(lambda: current().pid)

    assert current() is current()
    assert not resident.entered


def test_a_citizen_that_is_gone_is_not_kept() -> None:
    resident = Resident()
    entered = resident.entered

    del resident
    gc.collect()

    assert in_child(lambda: (current().pid == os.getpid(), len(entered))) == (True, 0)


def test_fifty_racing_threads_of_a_child_are_in_one_process() -> None:
    resident = Resident()

    def work() -> tuple[int, int, bool]:
        found: deque[Process] = deque()
        with fast_switching():
            run_threads(*[lambda: found.append(current())] * 50)
        same = set(found) == set(resident.entered) == {current()}
        return len(found), len(set(found)), same

    assert in_child(work) == (50, 1, True)


def test_a_thread_that_is_overtaken_joins_the_process_of_the_first() -> None:
    found: deque[Process] = deque()

    class Slow(Process):
        """While one is made, another thread makes one and is done."""

        def __init__(self) -> None:
            process.Process = Process  # type: ignore[misc]
            run_threads(lambda: found.append(current()))
            super().__init__()

    def work() -> bool:
        process.Process = Slow  # type: ignore[misc]
        mine = current()
        return mine is found[0] is current()

    assert in_child(work)


def test_a_grandchild_is_a_third_process() -> None:
    parent = current()

    def work() -> bool:
        child = current()
        return bool(in_child(lambda: current() not in {parent, child}))

    assert in_child(work)


def test_a_page_of_the_kernel_is_wiped_in_a_child() -> None:
    current()

    assert (
        process.is_same_process[0],
        in_child(lambda: process.is_same_process[0]),
    ) == (1, 0)


@pytest.mark.usefixtures("by_pid")
def test_without_such_a_page_a_child_is_another_process_too() -> None:
    parent, resident = current(), Resident()

    def work() -> tuple[bool, bool, bool]:
        child = current()
        told = list(resident.entered) == [child]
        return child is parent, child.pid == os.getpid(), told

    assert in_child(work) == (False, True, True)
    assert current() is parent
    assert not resident.entered


def test_a_mark_that_is_lost_in_the_same_process_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, resident = current(), Resident()
    monkeypatch.setattr(process, "is_same_process", process._PidPage())

    after = current()

    assert after is before
    assert list(resident.entered) == [before]
    assert process.is_same_process[0]


@pytest.mark.parametrize("error", [OSError, ValueError, AttributeError])
def test_where_the_kernel_wipes_no_page_the_pid_tells(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("django_gomq.bus.process.fork.mmap.mmap", refuse)

    is_same_process = process._make_page()
    before = is_same_process[0]
    is_same_process[0] = 1

    assert (bool(before), bool(is_same_process[0])) == (False, True)
    assert not in_child(lambda: is_same_process[0])
