"""Waits for conditions, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Final

SECONDS: Final = 60.0  # the longest wait, on a machine that does much else


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Poll until the condition holds, or fail."""
    deadline = time.monotonic() + SECONDS
    never = Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}"
        never.wait(0.002)
