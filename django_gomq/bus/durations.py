"""Seconds as people give them: as numbers, or as timedeltas."""

from __future__ import annotations

import numbers
from datetime import timedelta
from decimal import Decimal
from typing import Final

from .errors import ConfigurationError

SECONDS_OR_TIMEDELTA: Final = (
    "a number of seconds from 0, or a timedelta, of at most 100 years"
)
"""What an option that says how long takes, for texts of errors."""
LONGEST: Final = 100 * 365 * 86_400.0
"""What is longer was given in another unit; clocks and locks know no such times."""


def seconds_of(value: object) -> float | None:
    """Return a span of time in seconds, or None if that is none.

    It is a number or a timedelta, from 0 to 100 years; True and False are no numbers.
    """
    if value.__class__ is float or value.__class__ is int:
        # Each publish with a timeout asks, and to ask the classes of numbers below
        # costs as much as the publish.
        return float(value) if 0 <= value <= LONGEST else None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        seconds = float(value)
    except (OverflowError, ValueError):  # an int beyond floats, a NaN that signals
        return None
    return seconds if 0 <= seconds <= LONGEST else None


def read_seconds(option: str, value: object, *, least: float = 0.0) -> float:
    """Return the seconds that an option says; else raise ConfigurationError."""
    seconds = seconds_of(value)
    if seconds is None or seconds < least:
        raise ConfigurationError(
            f"{option} is {value!r:.120}, not a number of seconds from {least:g}, or a "
            "timedelta, of at most 100 years."
        )
    return seconds


def timeout_of(value: float | timedelta | None) -> float | None:
    """Return a timeout in seconds, or None for none; else raise ConfigurationError."""
    if value is None:
        return None
    seconds = seconds_of(value)
    if seconds is None:
        raise ConfigurationError(
            f"timeout is {value!r:.120}, not {SECONDS_OR_TIMEDELTA}; None is none."
        )
    return seconds
