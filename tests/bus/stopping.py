"""Stops that are given the time that they need."""

from __future__ import annotations

import pytest

from tests.bus.waiting import LONG


def let_stops_wait(patch: pytest.MonkeyPatch) -> None:
    """Have a stop wait for what is under way, however long a busy machine takes."""
    for limit in (
        "bus.runtime.STOP_SECONDS",
        "bus.runtime.SPILL_SECONDS",
        "backends.memory.dispatcher.STOP_SECONDS",
        "backends.memory.publisher._HAND_OVER_SECONDS",
    ):
        patch.setattr(f"django_gomq.{limit}", LONG)
