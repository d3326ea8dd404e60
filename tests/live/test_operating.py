"""What an operator does in Chromium is so in both workers, under traffic."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import dropwhile

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.django_site.waiting import SECONDS, wait_until
from tests.live.browsing import LIVE, Clinic, Open
from tests.servers.processes import is_alive

pytestmark = pytest.mark.slow

AUDIT = "audit.trail"
# One that is paused as its worker ends loses what it held, and says so for minutes.
STATISTICS = "statistics.records"
TIMEOUT = SECONDS * 1000
_ON_ITS_WAY = re.compile(r"Pausing · [01] of 2|Paused.*")


def noted(clinic: Clinic, name: str) -> list[tuple[int, float]]:
    """Return which worker handled a message, and when, for each so far."""
    book = clinic.folder / name
    lines = book.read_text().splitlines() if book.exists() else []
    return [(int(pid), float(at)) for pid, at in (line.split() for line in lines)]


def workers(page: Page) -> set[int]:
    """Return the processes that the page tells of."""
    text = page.locator("section[aria-labelledby=g-processes]").inner_text()
    return {int(pid) for pid in re.findall(r"pid (\d+)", text)}


def visit_all(clinic: Clinic, pids: set[int]) -> None:
    """Visit until each of these has emitted some."""
    wanted = dict.fromkeys(pids, 10)

    def visited() -> bool:
        wanted[int(clinic.get("/visit?times=2"))] -= 1
        return max(wanted.values()) <= 0

    wait_until(visited, "a visit to each worker")


def until_both_handle(clinic: Clinic, page: Page, name: str) -> set[int]:
    """Wait until two workers handle what comes now; return them."""
    wait_until(lambda: len(workers(page)) == 2, "both workers on the page")
    pids, start = workers(page), time.time()

    def handle() -> bool:
        return pids <= {pid for pid, at in noted(clinic, name) if at > start}

    wait_until(handle, "both workers at work")
    return pids


def row(page: Page, name: str) -> Locator:
    """Return what the page says of a consumer."""
    return page.locator(f"[id='row-default/{name}']")


def badge(page: Page, name: str) -> Locator:
    """Return the state of a consumer."""
    return row(page, name).locator(".g-badge")


def press(page: Page, name: str, word: str) -> None:
    """Press the button of a consumer."""
    row(page, name).get_by_role("button", name=word).click()


def until_paused(page: Page, name: str) -> list[str]:
    """Pause a consumer, and wait for the page to say that it is; return its words."""
    press(page, name, "Pause")
    said: list[str] = []

    def is_paused() -> bool:
        word = badge(page, name).inner_text()
        if not said or word != said[-1]:
            said.append(word)
        return word.startswith("Paused")

    wait_until(is_paused, "the pause")
    return said


def test_a_pause_stops_both_workers_and_a_resume_sets_them_off(
    open_window: Open, clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    page = open_window().log_in("anna")
    pids = until_both_handle(clinic, page, AUDIT)

    asked = time.time()
    said = until_paused(page, AUDIT)
    told = time.time() - asked
    visit_all(clinic, pids)  # what was in a handler has ended
    book = noted(clinic, AUDIT)
    visit_all(clinic, pids)

    assert noted(clinic, AUDIT) == book
    words = list(dropwhile(lambda word: not _ON_ITS_WAY.fullmatch(word), said))
    assert all(map(_ON_ITS_WAY.fullmatch, words)), said
    reached = max(at for _, at in book) - asked
    with capsys.disabled():
        print(  # noqa: T201 - a figure for whoever runs this
            f"\na pause stopped both workers in {reached:.2f} s, "
            f"and the page said so after {told:.2f} s: {', '.join(said)}"
        )
    press(page, AUDIT, "Resume")
    until_both_handle(clinic, page, AUDIT)
    expect(badge(page, AUDIT)).to_have_text("Running", timeout=TIMEOUT)


def test_a_worker_that_comes_later_stays_paused(
    open_window: Open, clinic: Clinic
) -> None:
    page = open_window().log_in("anna")
    before = until_both_handle(clinic, page, STATISTICS)
    until_paused(page, STATISTICS)

    old = min(before)
    os.kill(old, signal.SIGTERM)
    wait_until(lambda: not is_alive(old), "the end of a worker")
    # It starts its bus as it emits for the first time.
    wait_until(lambda: int(clinic.get("/visit")) not in before, "another")
    wait_until(lambda: len(workers(page) - {old}) == 2, "the new one on the page")
    after = workers(page) - {old}
    visit_all(clinic, after)
    book = noted(clinic, STATISTICS)
    visit_all(clinic, after)

    assert badge(page, STATISTICS).inner_text().startswith("Paused")
    assert noted(clinic, STATISTICS) == book
    press(page, STATISTICS, "Resume")
    wait_until(lambda: old not in workers(page), "the old one off the page")
    assert until_both_handle(clinic, page, STATISTICS) == after


def test_another_capacity_is_that_of_both_workers(
    open_window: Open, clinic: Clinic
) -> None:
    page = open_window().log_in("anna")
    until_both_handle(clinic, page, AUDIT)
    row(page, AUDIT).locator(".g-name").click()
    page.fill("#g-capacity", "321")

    page.get_by_role("button", name="Set").click()
    expect(page.locator(".g-told").first).to_contain_text("capacity 321")
    page.goto(clinic.url + LIVE)

    expect(row(page, AUDIT)).to_contain_text("of 642", timeout=TIMEOUT)


def test_each_of_three_users_sees_what_they_may_do(
    open_window: Open, clinic: Clinic
) -> None:
    acts = {}
    for name in ("anna", "vera", "nils"):
        visit = open_window()
        page = visit.log_in(name)
        found = {"page": page.locator(".g-tiles").count()}
        found["pause"] = page.get_by_role("button", name=f"Pause {AUDIT}").count()
        visit.go(f"{LIVE}consumers/default/{AUDIT}/")
        found["resize"] = page.locator("#g-capacity").count()
        acts[name] = found

    assert acts == {
        "anna": {"page": 1, "pause": 1, "resize": 1},
        "vera": {"page": 1, "pause": 0, "resize": 0},
        "nils": {"page": 0, "pause": 0, "resize": 0},
    }
