"""How numbers are written on the page: as short as one reads them at a glance."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "\N{EN DASH}"
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
"""A narrow space that no line is broken at."""
_PER_SECOND_DIGITS: Final = 100
"""From here on a rate has no part of one."""
_DURATIONS: Final = (
    (0.001, 1e6, "µs", 0),
    (0.01, 1e3, "ms", 1),
    (1.0, 1e3, "ms", 0),
    (10.0, 1.0, "s", 1),
    (120.0, 1.0, "s", 0),
    (7_200.0, 1 / 60, "min", 0),
    (172_800.0, 1 / 3_600, "h", 0),
    (float("inf"), 1 / 86_400, "d", 0),
)
"""Below how many seconds, times what, in which unit, with how many digits."""


def count(number: float) -> str:
    """Return a whole number with its thousands parted."""
    return f"{number:,.0f}".replace(",", _THIN)


def about(number: float) -> str:
    """Return a number at an axis: whole, unless it is small."""
    return f"{number:g}" if number < _PER_SECOND_DIGITS else count(number)


def rate(number: float) -> str:
    """Return how many a second."""
    if number < 0.05:  # noqa: PLR2004 - what would be written as 0.0
        return "0"
    return f"{number:.1f}" if number < _PER_SECOND_DIGITS else count(number)


def share(part: float, whole: float) -> str:
    """Return the percentage, 0 for a share of nothing."""
    return f"{100 * part / whole:.1f}{_THIN}%" if part and whole else "0"


def duration(seconds: float | None) -> str:
    """Return a time span with its unit."""
    if seconds is None:
        return UNKNOWN
    seconds = max(0.0, seconds)
    if not seconds:
        return f"0{_THIN}s"
    for below, times, unit, digits in _DURATIONS:
        text = f"{seconds * times:.{digits}f}"
        if seconds < below:
            return f"{text}{_THIN}{unit}"
    raise AssertionError(seconds)


def plural(number: int, noun: str, ending: str = "s") -> str:
    """Return ``1 message``, ``2 messages``."""
    return f"{count(number)} {noun}{'' if number == 1 else ending}"
