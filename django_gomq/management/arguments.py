"""What people write for event types, moments and spans on a command line."""

from __future__ import annotations

import re
import time
from argparse import ArgumentTypeError
from typing import Final

from django.utils.dateparse import parse_datetime

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.patterns import Pattern

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def pattern(text: str) -> Pattern:
    """Return the event type, or pattern of them, that a text names."""
    try:
        return Pattern(text)
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from None


def span(text: str) -> float:
    """Return the seconds of a text such as ``7d``."""
    seconds = _span(text)
    if seconds is None:
        raise ArgumentTypeError(f"{text!r:.50} is no span: write 30m, 2h or 7d")
    return seconds


def _span(text: str) -> float | None:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    return float(int(found[1]) * _UNITS[found[2]]) if found else None


def moment(text: str) -> float:
    """Return a moment, or that of a span ago, as seconds since 1970."""
    seconds = _span(text)
    if seconds is not None:
        return time.time() - seconds
    try:
        found = parse_datetime(text)
        if found is not None:
            return found.timestamp()  # without an offset it is local time
    except (ValueError, OverflowError):
        pass
    raise ArgumentTypeError(
        f"{text!r:.50} is no time: write 30m, 2h, 7d, or 2026-01-31T12:00"
    )
