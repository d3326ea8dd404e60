"""In Chromium: from a message that was handled to all that it caused, on a database."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.live.browsing import LIVE, Visit, open_chain, serving

pytestmark = pytest.mark.slow


def test_a_handled_message_leads_to_what_became_of_all_that_it_caused(
    browser: Browser, tmp_path: Path
) -> None:
    with serving(tmp_path, CLINIC_DURABLE="1") as clinic:
        context = browser.new_context()
        visit = Visit(clinic, context)
        page = visit.log_in("vera", f"{LIVE}messages/")
        with clinic.visited():
            open_chain(page)
        text = page.locator(".g-tree").first.inner_text()
        context.close()

    for event, consumer in (
        ("lab.requested", "lab.analysis"),
        ("lab.result.ready", "notifications.email"),
        ("billing.invoice.paid", "search.index"),
    ):
        told = rf"{event}.*?{consumer} handled it after [\d.]+ s, in attempt \d"
        assert re.search(told, text, re.DOTALL), (event, text)
    assert "nothing is kept" not in text
    assert visit.console == []
