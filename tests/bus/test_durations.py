"""How long something takes may be said in seconds or as a timedelta, everywhere."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from django_gomq.bus.durations import seconds_of, timeout_of
from django_gomq.bus.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((0, 0.0), (2, 2.0), (0.5, 0.5), (Fraction(1, 4), 0.25)),
        (Decimal("1.5"), 1.5),
        *((timedelta(minutes=1), 60.0), (timedelta(0), 0.0)),
    ],
    ids=str,
)
def test_a_span_is_read_in_seconds(value: Any, seconds: float) -> None:
    assert seconds_of(value) == seconds
    assert timeout_of(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.1, math.nan, math.inf, 10**400, True, False, "1", b"1", [1], 1j),
        *(
            1e10,
            timedelta.max,
            timedelta(-1),
            Decimal(-1),
            Decimal("NaN"),
            Decimal("sNaN"),
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_span_is_none(value: Any) -> None:
    assert seconds_of(value) is None
    with pytest.raises(ConfigurationError, match="not a number of seconds from 0, or"):
        timeout_of(value)


def test_no_timeout_is_none() -> None:
    assert timeout_of(None) is None
