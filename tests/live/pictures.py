"""Takes the pictures of the docs: ``python -m tests.live.pictures``, in minutes.

Needs Debian's chromium and pngquant.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from playwright.sync_api import Browser, Page, expect

from tests.django_site.programs import ROOT
from tests.live.browsing import (
    ADMIN,
    LIVE,
    Clinic,
    Visit,
    chromium,
    open_chain,
    serving,
)

FOLDER: Final = ROOT / "docs" / "images"
MINUTES: Final = 4
"""Of traffic, before the first picture: the charts are of five."""
PAUSED: Final = "statistics.records"
SOME: Final = 11
"""Messages that are seen, and one more."""
_WIDE: Final[dict[str, Any]] = {"viewport": {"width": 1280, "height": 900}}
_WIDER: Final[dict[str, Any]] = {
    "viewport": {"width": 1600, "height": 900}
}  # beside its sidebar
_PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 1.5,
    "is_mobile": True,
    "has_touch": True,
}
# Whole, these are long columns of cards.
_FIRST_SCREENS: Final = ("live-phone", "live-unfold", "live-messages")
_HIDE_FOLDER: Final = """folder => {
    for (const pre of document.querySelectorAll("pre"))
        pre.textContent = pre.textContent.replaceAll(folder, "");
}"""


def take(
    browser: Browser,
    clinic: Clinic,
    name: str,
    path: str,
    mount: str,
    go_on: Callable[[Page], None] = lambda page: None,
    **options: Any,
) -> None:
    """Take one picture, of a page that has been polled, or of where that leads."""
    context = browser.new_context(**options)
    visit = Visit(clinic, context)
    page = visit.log_in("anna", mount + path)
    go_on(page)
    _close_sidebar(page)
    for details in page.locator("summary").all()[:1]:
        details.click()
    page.wait_for_timeout(3_000)
    # Which folder this was taken in is nobody's business.
    page.evaluate(_HIDE_FOLDER, f"{ROOT}/")
    is_whole = name not in _FIRST_SCREENS
    file = FOLDER / f"{name}.png"
    page.screenshot(path=file, full_page=is_whole)
    subprocess.run(["pngquant", "--force", "--ext=.png", file], check=True)
    print(name, visit.console)  # noqa: T201 - a program
    context.close()


def _close_sidebar(page: Page) -> None:
    page.evaluate("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
    page.reload()


def _see_some(page: Page) -> None:
    """Wait for messages, of several seconds."""
    page.locator(".g-messages tbody tr").nth(SOME).wait_for()


def _wait_and_pause(browser: Browser, clinics: Sequence[Clinic]) -> None:
    """Look at each for some minutes, then pause a consumer there."""
    lookers = [Visit(clinic, browser.new_context()) for clinic in clinics]
    for looker in lookers:
        looker.log_in("anna", ADMIN)
    lookers[0].page.wait_for_timeout(MINUTES * 60_000)
    for looker in lookers:
        looker.page.get_by_role("button", name=f"Pause {PAUSED}").click()
        row = looker.page.locator(f"[id='row-default/{PAUSED}']")
        expect(row).to_contain_text("by anna")


def main() -> None:
    """Take them all."""
    with ExitStack() as running:
        browser = running.enter_context(chromium())
        clinics = []
        for environ in ({}, {"CLINIC_UNFOLD": "1"}, {"CLINIC_DURABLE": "1"}):
            folder = Path(running.enter_context(TemporaryDirectory()))
            clinic = running.enter_context(serving(folder, **environ))
            running.enter_context(clinic.visited(2, 0.12))
            clinics.append(clinic)
        plain, unfold, durable = clinics
        _wait_and_pause(browser, [plain, unfold])
        ledger = "consumers/default/billing.ledger/"
        for scheme in ("light", "dark"):
            options = {**_WIDE, "color_scheme": scheme}
            take(browser, plain, f"live-{scheme}", "", ADMIN, **options)
        take(browser, plain, "live-phone", "", LIVE, **_PHONE)
        take(browser, plain, "live-consumer", ledger, ADMIN, **_WIDE)
        take(browser, plain, "live-dead-letters", "dead-letters/", ADMIN, **_WIDE)
        take(browser, durable, "live-messages", "messages/", LIVE, _see_some, **_WIDE)
        take(browser, durable, "live-tree", "messages/", LIVE, open_chain, **_WIDE)
        take(browser, unfold, "live-unfold", "", ADMIN, **_WIDER)


if __name__ == "__main__":
    main()
