"""Chromium, before a site of two worker processes under traffic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.live.browsing import Clinic, Open, Visit, chromium, serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def clinic(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clinic]:
    with serving(tmp_path_factory.mktemp("clinic")) as found, found.visited():
        yield found


@pytest.fixture
def open_window(browser: Browser, clinic: Clinic) -> Iterator[Open]:
    contexts = []

    def open_one(**options: Any) -> Visit:
        context = browser.new_context(**options)
        contexts.append(context)
        return Visit(clinic, context)

    yield open_one
    for context in contexts:
        context.close()
