"""Names out of data: how many are labels of their own, over processes and time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from django_gomq.bus.counts import MAX_ERROR_TYPES, OTHER
from django_gomq.observability.metrics.labels import Labels, SharedLabels

from .companions import Companion, library_page, living, run_to_the_end
from .live import do_nothing, publish, wait_quiet
from .numbers import Page

EVENTS = ("default", "event")
MakeLabels = Callable[[], Labels]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: use POSIX")


@pytest.fixture(params=["of a process", "shared"])
def labels(request: pytest.FixtureRequest, tmp_path: Path) -> Labels:
    return Labels() if request.param == "of a process" else SharedLabels(str(tmp_path))


def test_the_first_few_names_are_labels_and_the_others_share_one(
    labels: Labels,
) -> None:
    given = [labels.of(EVENTS, name, 2) for name in ("a", "b", "c", "a", "c", "d")]

    assert given == ["a", "b", OTHER, "a", OTHER, OTHER]


def test_each_subject_has_names_of_its_own(labels: Labels) -> None:
    consumers = [("default", "error", name) for name in ("one", "two")]

    given = [labels.of(one, name, 1) for one in consumers for name in ("a", "b")]

    assert given == ["a", OTHER, "a", OTHER]


def test_names_are_of_all_processes_together(tmp_path: Path) -> None:
    first, second = SharedLabels(str(tmp_path)), SharedLabels(str(tmp_path))

    given = [
        first.of(EVENTS, "a", 3),
        second.of(EVENTS, "b", 3),
        first.of(EVENTS, "c", 3),
        second.of(EVENTS, "d", 3),
        second.of(EVENTS, "c", 3),
        first.of(EVENTS, "b", 3),
    ]

    assert given == ["a", "b", "c", OTHER, "c", "b"]


@pytest.mark.parametrize("harm", ["cut off", "nonsense", "away"])
def test_a_file_of_names_that_was_harmed_stops_nothing(
    tmp_path: Path, harm: str
) -> None:
    SharedLabels(str(tmp_path)).of(EVENTS, "a", 3)
    [file] = tmp_path.iterdir()
    if harm == "away":
        file.unlink()
    else:
        file.write_bytes(b'["default", "ev' if harm == "cut off" else b"\xff\n7\n[]\n")

    assert SharedLabels(str(tmp_path)).of(EVENTS, "b", 3) == "b"


def test_without_the_file_names_share_a_label(tmp_path: Path) -> None:
    labels = SharedLabels(str(tmp_path / "gone"))
    before = labels.of(EVENTS, "a", 3)
    (tmp_path / "gone").mkdir()

    after = [labels.of(EVENTS, name, 3) for name in ("a", "b")]

    assert before == OTHER
    assert after == [OTHER, "b"], "what shared goes on to share"


def test_who_holds_the_file_holds_nobody_up(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "gomq_labels.json"

    def hold() -> None:
        # The descriptor lives as long as its process.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)

    with living(hold):
        assert SharedLabels(str(tmp_path)).of(EVENTS, "a", 3) == OTHER


class Renamed(Companion):
    """One whose events and errors have names made from data."""

    def __init__(self, folder: Path, undeclared: int) -> None:
        super().__init__(folder)
        self.collector.undeclared = undeclared
        self.broker.consume("made.*", fail, name="fails")
        self.broker.consume("*", do_nothing, name="all")

    def publish_names(self, worker: int) -> None:
        for number in range(30):
            publish(self.broker, f"made.by_{worker}_{number}")
        wait_quiet(self.broker)


def fail(message: object) -> None:
    name = getattr(message, "type", "").replace(".", "_").title()
    raise type(name, (Exception,), {})


@pytest.mark.parametrize("undeclared", [0, 7])
def test_series_stay_as_many_however_many_processes_come_and_go(
    tmp_path: Path, undeclared: int
) -> None:
    def work(number: int) -> None:
        one = Renamed(tmp_path, undeclared)
        one.publish_names(number)
        one.close()

    pages: list[Page] = []
    for number in range(5):
        run_to_the_end(lambda: work(number))  # noqa: B023 - run at once
        pages.append(library_page(tmp_path))

    assert {len(page.all) for page in pages} == {len(pages[0].all)}
    last = pages[-1]
    assert last.sum("messages_published_total") == 5 * 30
    assert last.sum("handler_exceptions_total", consumer="fails") == 5 * 30
    errors = last.labels("handler_exceptions_total", "error_type")
    assert len(errors) == MAX_ERROR_TYPES + 1
    events = last.labels("messages_published_total", "event")
    assert len(events) == 1 + 1 + undeclared


def test_after_the_directory_was_emptied_names_are_counted_anew(
    tmp_path: Path,
) -> None:
    one = Renamed(tmp_path, 3)
    one.publish_names(1)
    one.sharing.flush()
    for file in tmp_path.iterdir():
        file.unlink()
    two = Renamed(tmp_path, 3)
    two.publish_names(2)
    two.sharing.flush()

    page = one.page()

    one.close()
    two.close()
    assert len(page.labels("messages_published_total", "event")) == 1 + 1 + 3
    assert page.sum("messages_published_total") == 60
