"""The pytest plugin: the ``gomq_events`` fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .capture import CapturedEvents, capture


@pytest.fixture
def gomq_events() -> Iterator[CapturedEvents]:
    """Return the events that the test emits, captured; nothing is published."""
    with capture() as events:
        yield events
