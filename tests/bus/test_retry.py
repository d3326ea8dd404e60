from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.retry import NO_RETRY, Retry

ERROR = ValueError("no")
SECONDS = st.floats(0, 1e6)
DRAWS = st.none() | st.floats(0, 1)


@contextmanager
def drawing(drawn: float | None) -> Iterator[None]:
    """Draw this part of every range: Hypothesis seeds all randomness alike."""

    def uniform(low: float, high: float) -> float:
        assert drawn is not None
        return low + (high - low) * drawn

    with mock.patch("django_gomq.bus.retry.random.uniform", uniform):
        yield


def delays(retry: Retry) -> list[float | None]:
    return [retry.delay_after(attempt, ERROR) for attempt in range(1, 6)]


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    retry = Retry(attempts=9, min_delay=0.5, max_delay=3, factor=2, jitter=False)

    assert delays(retry) == [0.5, 1, 2, 3, 3]


def test_delays_may_be_timedeltas() -> None:
    retry = Retry(min_delay=timedelta(seconds=2), max_delay=timedelta(minutes=1))

    assert retry == Retry(min_delay=2, max_delay=60)


def test_an_option_that_does_not_exist_is_told_with_those_that_do() -> None:
    wrong: Any = {"max_retries": 3}

    with pytest.raises(ConfigurationError) as caught:
        Retry(**wrong)

    assert str(caught.value) == (
        "Retry has no option 'max_retries'; there are attempts, min_delay, max_delay, "
        "factor, jitter, retry_on, give_up_on."
    )


@pytest.mark.parametrize("option", ["attempts", "jitter"])
def test_a_retry_stays_as_it_was_made(option: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Retry(), option, 2)


def test_a_factor_of_one_keeps_the_delay() -> None:
    retry = Retry(attempts=9, min_delay=2, factor=1, jitter=False)

    assert delays(retry) == [2, 2, 2, 2, 2]


def test_the_last_attempt_is_followed_by_none() -> None:
    retry = Retry(attempts=3, min_delay=1, factor=1, jitter=False)

    assert delays(retry) == [1, 1, None, None, None]


def test_without_a_retry_there_is_one_attempt() -> None:
    assert NO_RETRY.delay_after(1, ERROR) is None


@given(SECONDS, SECONDS, st.floats(1, 1e3), st.integers(1, 10_000), DRAWS)
def test_a_delay_never_leaves_its_bounds(
    one: float, other: float, factor: float, attempt: int, drawn: float | None
) -> None:
    low, high = sorted((one, other))
    retry = Retry(
        attempts=10_001,
        min_delay=low,
        max_delay=high,
        factor=factor,
        jitter=drawn is not None,
    )

    with drawing(drawn):
        delay = retry.delay_after(attempt, ERROR)

    assert delay is not None
    assert low <= delay <= high


@given(st.floats(1e-3, 1e3), st.integers(1, 20), st.floats(0, 1))
def test_jitter_adds_up_to_half_of_the_delay(
    low: float, attempt: int, drawn: float
) -> None:
    retry = Retry(attempts=99, min_delay=low, max_delay=3e9)
    whole = low * 2 ** (attempt - 1)

    with drawing(drawn):
        delay = retry.delay_after(attempt, ERROR)

    assert delay == pytest.approx(whole * (1 + drawn / 2))


def test_failures_of_one_moment_do_not_come_back_in_one_moment() -> None:
    retry = Retry(min_delay=1, max_delay=60)

    drawn = {retry.delay_after(1, ERROR) for _ in range(100)}

    assert len(drawn) > 50


def test_a_delay_too_large_for_a_number_is_the_maximum() -> None:
    retry = Retry(attempts=10_000, min_delay=1, max_delay=60, factor=10)

    assert retry.delay_after(9_999, ERROR) == 60


def test_only_the_errors_to_retry_on_are_tried_again() -> None:
    retry = Retry(retry_on=(OSError,))

    assert retry.delay_after(1, ConnectionError()) is not None
    assert retry.delay_after(1, ValueError()) is None


def test_what_leaves_the_program_is_not_tried_again() -> None:
    assert Retry().delay_after(1, SystemExit()) is None


def test_giving_up_outweighs_trying_again() -> None:
    retry = Retry(retry_on=(Exception,), give_up_on=(LookupError,))

    assert retry.delay_after(1, KeyError("k")) is None
    assert retry.delay_after(1, ValueError()) is not None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attempts": 0}, "attempts is 0, not a whole number"),
        ({"attempts": 2.0}, "attempts is 2.0"),
        ({"jitter": "no"}, "jitter is 'no', not True or False"),
        ({"max_delay": 1e12}, "max_delay is 1000000000000.0, not a number"),
        ({"attempts": None}, "attempts is None"),
        ({"min_delay": "1"}, "min_delay is '1', not a number"),
        ({"max_delay": float("inf")}, "max_delay is inf, not a number of seconds"),
        ({"factor": float("nan")}, "factor is nan, not a number"),
        ({"min_delay": -1}, "min_delay is -1, not a number of seconds from 0"),
        ({"min_delay": 61}, "min_delay is 61 s, more than max_delay, 60 s"),
        ({"max_delay": 0.5}, "min_delay is 1 s, more than max_delay, 0.5 s"),
        ({"factor": 0.5}, "factor is 0.5, not a number from 1"),
        ({"attempts": True}, "attempts is True, not a whole number"),
        ({"max_delay": timedelta(-1)}, "max_delay is .*, not a number of seconds"),
        ({"retry_on": ValueError}, "not a tuple of exception classes"),
        ({"give_up_on": [ValueError]}, "not a tuple of exception classes"),
        ({"retry_on": ("ValueError",)}, "'ValueError' is not an exception class"),
        ({"give_up_on": (int,)}, "is not an exception class"),
    ],
    ids=repr,
)
def test_a_retry_that_cannot_work_is_refused(options: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Retry: .*{text}"):
        Retry(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 1},
        {"min_delay": 0, "max_delay": 0},
        {"factor": 1},
        {"retry_on": ()},
    ],
    ids=repr,
)
def test_a_retry_at_its_limits_works(options: Any) -> None:
    assert Retry(**options) == Retry(**options)
