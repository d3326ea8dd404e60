"""The live page in Chromium, before a site of two worker processes under traffic."""

from __future__ import annotations

import re
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.django_site.waiting import wait_until
from tests.live.browsing import ADMIN, LIVE, Clinic, Open, Visit, serving

pytestmark = pytest.mark.slow

PAGES: Final = (
    "",
    "dead-letters/",
    "messages/",
    "map/",
    "tree/",
    "consumers/default/billing.ledger/",
)
PHONE: Final = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
Scheme = Literal["light", "dark"]


def handled(page: Page) -> int:
    """Return how many messages a consumer handled in the last five minutes."""
    label = page.get_attribute("[id='row-default/cache.warm'] .g-bars", "aria-label")
    found = re.search(r"(\d+) handled", label or "")
    return int(found[1]) if found else 0


def test_numbers_move_by_themselves_and_the_policy_refuses_nothing(
    open_window: Open,
) -> None:
    visit = open_window()
    page = visit.log_in("vera")

    before = handled(page)
    expect(page.locator("#g-live-word")).to_have_text("Live")
    wait_until(lambda: handled(page) > before, "numbers that move")

    assert visit.console == []


@pytest.mark.parametrize("mount", [LIVE, ADMIN])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(open_window: Open, scheme: Scheme, mount: str) -> None:
    visit = open_window(color_scheme=scheme)
    page = visit.log_in("anna", mount)
    page.wait_for_selector(".g-count")

    found = {}
    for path in PAGES:
        visit.go(mount + path)
        for details in page.locator("summary").all():
            details.click()
        response = Axe().run(page, context=".gomq").response
        found[path] = [
            (rule["id"], node["html"], node["failureSummary"])
            for rule in response["violations"]
            for node in rule["nodes"]
        ]

    assert found == {path: [] for path in PAGES}


def test_what_fingers_touch_is_44_pixels_high(open_window: Open) -> None:
    visit = open_window(**PHONE, is_mobile=True)
    page = visit.log_in("anna")
    page.wait_for_selector(".g-count")

    low = {}
    for path in PAGES:
        visit.go(LIVE + path)
        low[path] = [
            (box["height"], element.inner_text())
            for element in page.locator(
                ".gomq button, .gomq .g-tabs a, .gomq a.g-name, .gomq summary, "
                ".gomq select, .gomq input:not([type=hidden], [type=checkbox])"
            ).all()
            if (box := element.bounding_box()) and box["height"] < 44
        ]

    assert low == {path: [] for path in PAGES}
    assert page.evaluate("document.body.scrollWidth <= innerWidth")


def test_a_poll_takes_no_focus_away_and_hold_stops_them(open_window: Open) -> None:
    page = open_window().log_in("vera")
    link = page.locator("[id='row-default/cache.warm'] .g-name")
    link.focus()
    before = handled(page)

    wait_until(lambda: handled(page) > before, "a poll")
    focused = page.evaluate("document.activeElement.textContent")
    page.locator("#g-hold").press("Enter")
    expect(page.locator("#g-live-word")).to_have_text("Held")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    polls: list[str] = []
    page.on("request", lambda request: polls.append(request.url))
    page.locator("#g-hold").press("Enter")
    wait_until(lambda: page.wait_for_timeout(50) is None and polls, "polls again")

    assert focused == "cache.warm"
    expect(page.locator("#g-live-word")).to_have_text("Live")


def test_what_is_opened_stays_open_through_polls(open_window: Open) -> None:
    visit = open_window()
    page = visit.log_in("anna")
    letters = page.locator(".g-tabs a", has_text="Dead letters")
    expect(letters).to_contain_text(re.compile(r"\d"))
    visit.go(f"{LIVE}consumers/default/billing.ledger/")
    first = page.locator("details").first.get_attribute("id")
    details = page.locator(f"details#{first}")  # faults change their places
    details.locator("summary").click()

    time = page.locator(".g-scope time")
    before = time.inner_text()
    wait_until(lambda: time.inner_text() != before, "a poll")

    assert details.get_attribute("open") is not None


def test_messages_come_by_themselves_and_of_those_that_are_asked_for(
    open_window: Open,
) -> None:
    visit = open_window()
    page = visit.log_in("vera", f"{LIVE}messages/")
    rows = page.locator(".g-messages tbody tr")

    rows.first.wait_for()
    first = rows.first.get_attribute("id")
    wait_until(lambda: rows.first.get_attribute("id") != first, "a later one")
    page.get_by_label("Event", exact=True).fill("page.*")
    page.get_by_label("Consumer", exact=True).select_option("cache.warm")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**/messages/?event=page.*&consumer=cache.warm")
    rows.first.wait_for()

    names = set(page.locator(".g-messages tbody th").all_inner_texts())
    assert names == {"page.viewed\ncache.warm"}
    expect(page.locator(".g-scope")).to_contain_text("All 2 processes")
    assert visit.console == []


def test_a_dead_letter_is_replayed_and_handled(
    open_window: Open, clinic: Clinic
) -> None:
    visit = open_window()
    page = visit.log_in("anna", f"{LIVE}dead-letters/")
    wait_until(lambda: page.reload() and page.locator(".g-group").count(), "a letter")
    page.locator("summary").first.click()
    data = page.locator(".g-letter").first.inner_text()
    found = re.search(r'"invoice": (\d+)', data)
    clinic.get("/mend")

    page.locator(".g-group input").first.check()
    page.get_by_role("button", name="Replay chosen").click()
    expect(page.locator(".g-told").first).to_contain_text("replayed")

    assert found
    assert '"card": "****"' in data
    charged = clinic.folder / "charged"
    wait_until(
        lambda: charged.exists() and found[1] in charged.read_text().split(),
        "the invoice",
    )
    assert visit.console == []


def test_in_unfold_it_is_whole_in_both_themes(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("unfold")
    with serving(folder, CLINIC_UNFOLD="1") as clinic, clinic.visited():
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme)
            visit = Visit(clinic, context)
            page = visit.log_in("anna", ADMIN)
            expect(page.locator("#g-live-word")).to_have_text("Live")
            response = Axe().run(page, context=".gomq").response
            context.close()

            assert [rule["id"] for rule in response["violations"]] == []
            assert [one for one in visit.console if "gomq" in one] == []
