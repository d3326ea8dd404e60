"""Which entries the flaky handler fails on."""

from __future__ import annotations

from typing import Final

FLAKY_EVERY: Final = 7  # of so many entries one fails at first
HOPELESS_EVERY: Final = 70  # and one each time


def fails(number: int, attempt: int) -> bool:
    """Whether the flaky handler fails on this entry in this attempt."""
    if number % HOPELESS_EVERY == 0:
        return True
    return number % FLAKY_EVERY == 0 and attempt == 1
