"""Many scrapers, one page a second."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Semaphore

import pytest
from prometheus_client import REGISTRY

from django_gomq.observability.metrics import install, single_flight, uninstall
from django_gomq.observability.metrics.collector import IncompleteError
from django_gomq.observability.metrics.single_flight import Pages

from .companions import run_to_the_end
from .live import WAIT_SECONDS, wait_until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Renders:
    """Makes pages, each with its number; slowly, where it is told to wait."""

    def __init__(self) -> None:
        self.count = 0
        self.began, self.may_end = Event(), Event()
        self.may_end.set()

    def __call__(self, accept: str) -> tuple[bytes, str]:
        self.count += 1
        self.began.set()
        assert self.may_end.wait(WAIT_SECONDS)
        return f"page {self.count}".encode(), "text/plain"


@pytest.fixture(autouse=True)
def _a_slow_machine_lets_no_page_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "FRESH_SECONDS", 60 * WAIT_SECONDS)


@pytest.fixture
def renders() -> Renders:
    return Renders()


@pytest.fixture
def pages(renders: Renders) -> Pages:
    return Pages(renders, renders)


def at_once(threads: int, call: Callable[[], bytes]) -> set[bytes]:
    barrier = Barrier(threads)

    def ask() -> bytes:
        barrier.wait(WAIT_SECONDS)
        return call()

    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(ask) for _ in range(threads)]
        return {one.result(WAIT_SECONDS) for one in asked}


def test_twenty_who_ask_at_once_get_one_page(pages: Pages, renders: Renders) -> None:
    bodies = at_once(20, lambda: pages.answer("").body)

    assert bodies == {b"page 1"}
    assert renders.count == 1


def test_who_waits_for_a_page_gets_it_however_old_it_is_then(
    pages: Pages, renders: Renders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "FRESH_SECONDS", 0.0)
    have_asked = Semaphore(0)

    def note(accept: str) -> str:
        have_asked.release()
        return accept

    monkeypatch.setattr(single_flight, "content_type_of", note)
    renders.may_end.clear()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(pages.answer, "") for _ in range(3)]
        for _ in asked:
            assert have_asked.acquire(timeout=WAIT_SECONDS)

        renders.may_end.set()
        bodies = {one.result(WAIT_SECONDS).body for one in asked}

    assert bodies == {b"page 1"}


def test_a_page_is_made_anew_after_a_second(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = {pages.answer("").body for _ in range(3)}
    monkeypatch.setattr(single_flight, "FRESH_SECONDS", 0.0)

    after = pages.answer("").body

    assert (within, after) == ({b"page 1"}, b"page 2")


def test_pages_of_other_formats_and_buckets_are_others(pages: Pages) -> None:
    answers = [
        pages.answer("").body,
        pages.answer(OPENMETRICS).body,
        pages.answer("", fine=True).body,
        pages.answer("text/plain").body,
    ]

    assert answers == [b"page 1", b"page 2", b"page 3", b"page 1"]


def test_another_configuration_has_a_page_of_its_own(pages: Pages) -> None:
    install(list)
    try:
        first = pages.answer("").body
        install(list)
        second = pages.answer("").body
    finally:
        uninstall(REGISTRY)

    assert (first, second) == (b"page 1", b"page 2")


def test_what_cannot_be_whole_is_unavailable_and_says_why(renders: Renders) -> None:
    def lack(accept: str) -> tuple[bytes, str]:
        renders(accept)
        raise IncompleteError("a file is away")

    pages = Pages(lack, lack)

    answers = [pages.answer("") for _ in range(3)]

    assert {answer.status for answer in answers} == {503}
    assert all(b"a file is away" in answer.body for answer in answers)
    assert renders.count == 1


def test_nobody_waits_for_ever_for_somebody_elses_page(
    pages: Pages, renders: Renders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "WAIT_SECONDS", 0.01)
    renders.may_end.clear()
    slow = threading.Thread(target=pages.answer, args=("",))
    slow.start()
    assert renders.began.wait(WAIT_SECONDS)

    answer = pages.answer("")

    renders.may_end.set()
    slow.join(WAIT_SECONDS)
    assert answer.status == 503


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: use POSIX")
def test_a_child_that_is_forked_in_the_midst_of_a_page_makes_its_own(
    pages: Pages, renders: Renders
) -> None:
    renders.may_end.clear()
    slow = threading.Thread(target=pages.answer, args=("",))
    slow.start()
    wait_until(renders.began.is_set)

    def ask() -> None:
        # Its parent may have been in the old one, with its lock.
        renders.may_end = Event()
        renders.may_end.set()
        assert pages.answer("").body == b"page 2"

    run_to_the_end(ask)
    renders.may_end.set()
    slow.join(WAIT_SECONDS)
