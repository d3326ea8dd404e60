from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from django_gomq.observability.metrics.multiprocess.slots import Slot, claim, hold

from .companions import fork, kill, living, run_to_the_end


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def slot(folder: str) -> Iterator[Slot]:
    taken = claim(folder)
    yield taken
    taken.release()


def numbers_that_are_free(folder: str, upto: int = 4) -> list[int]:
    found = []
    with ExitStack() as stack:
        for number in range(upto):
            slot = hold(folder, number)
            if slot is not None:
                stack.callback(slot.release)
                found.append(number)
    return found


def test_each_process_holds_the_lowest_slot_that_is_free(
    folder: str, slot: Slot
) -> None:
    def is_second() -> None:
        assert claim(folder).number == 1

    with living(is_second):
        run_to_the_end(lambda: check_claim(folder, 2))
    run_to_the_end(lambda: check_claim(folder, 1))

    assert slot.number == 0


def check_claim(folder: str, number: int) -> None:
    assert claim(folder).number == number


def test_a_slot_is_free_as_soon_as_its_process_is_killed(folder: str) -> None:
    with living(lambda: claim(folder)) as child:
        before = numbers_that_are_free(folder)
        kill(child)
        after = numbers_that_are_free(folder)

    assert (before, after) == ([1, 2, 3], [0, 1, 2, 3])


def test_a_slot_outlives_children_that_inherit_its_descriptor(
    folder: str, slot: Slot
) -> None:
    run_to_the_end(slot.release)
    run_to_the_end(lambda: None)
    subprocess.run([sys.executable, "-c", ""], close_fds=False, check=True)

    run_to_the_end(lambda: check_free(folder, [1, 2, 3]))


def check_free(folder: str, expected: list[int]) -> None:
    assert numbers_that_are_free(folder) == expected


def test_a_child_does_not_hold_what_its_parent_held(folder: str) -> None:
    reader, writer = os.pipe()

    def leave_a_child() -> None:
        claim(folder)
        if not fork():
            os.close(writer)
            os.read(reader, 1)  # until the test ends
            os._exit(0)

    run_to_the_end(leave_a_child)
    free = numbers_that_are_free(folder)
    os.close(writer)
    os.close(reader)

    assert free == [0, 1, 2, 3]


def test_a_slot_is_not_taken_twice_in_one_process_nor_lost_by_asking(
    folder: str, slot: Slot
) -> None:
    assert hold(folder, slot.number) is None

    run_to_the_end(lambda: check_free(folder, [1, 2, 3]))


def test_a_slot_is_free_after_its_release(folder: str, slot: Slot) -> None:
    slot.release()
    slot.release()

    run_to_the_end(lambda: check_free(folder, [0, 1, 2, 3]))
    assert not slot.is_in_place


def test_a_lock_whose_file_is_removed_meanwhile_counts_for_nothing(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.lockf
    removed: list[Path] = []

    def lock_late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(tmp_path / "gomq_0.lock")
            removed[0].unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "lockf", lock_late)

    slot = hold(folder, 0)

    assert slot is not None
    assert slot.is_in_place
    assert removed
    slot.release()


def test_a_slot_whose_file_was_removed_is_no_longer_in_place(
    folder: str, slot: Slot, tmp_path: Path
) -> None:
    before = slot.is_in_place
    for one in tmp_path.iterdir():
        one.unlink()

    assert (before, slot.is_in_place) == (True, False)
