from __future__ import annotations

from typing import Any

import pytest

from django_gomq.bus.delivery import (
    ACK,
    EXPIRED,
    Ack,
    BatchFailed,
    Dropped,
    DropReason,
    RetryAfter,
    RetryLater,
    Verdict,
)
from django_gomq.bus.errors import ConfigurationError


@pytest.mark.parametrize("seconds", [0, 0.5, 86_400])
def test_a_handler_can_ask_for_another_time(seconds: float) -> None:
    asked = RetryLater(seconds)

    assert asked.seconds == seconds
    assert str(asked) == f"again in {seconds} s"


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_another_time_lies_ahead(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="not seconds from now"):
        RetryLater(seconds)


def test_a_batch_says_which_of_its_messages_failed() -> None:
    errors: dict[str, BaseException] = {"1": ValueError("a"), "2": KeyError("b")}

    failed = BatchFailed(errors)

    assert failed.errors == errors
    assert str(failed) == "2 messages of the batch failed"


def test_the_failures_of_a_batch_are_those_of_the_raise() -> None:
    errors: dict[str, BaseException] = {"1": ValueError("a")}
    failed = BatchFailed(errors)

    errors.clear()

    assert list(failed.errors) == ["1"]


# These are label values of metrics: dashboards and alerts ask for them by name.
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Verdict, ["success", "error", "timeout", "rejected"]),
        (DropReason, ["channel_full", "evicted", "expired", "shutdown"]),
    ],
)
def test_the_words_for_what_happened_are_a_closed_list(
    kind: Any, values: list[str]
) -> None:
    assert [str(one) for one in kind] == values


def test_outcomes_are_equal_when_they_say_the_same() -> None:
    error = ValueError()

    assert Ack() == ACK
    assert Dropped(DropReason.EXPIRED) == EXPIRED
    assert RetryAfter(1.0, error) == RetryAfter(1.0, error, Verdict.ERROR)
    assert RetryAfter(1.0, None) != RetryAfter(2.0, None)


def test_an_outcome_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EXPIRED.reason = DropReason.SHUTDOWN  # type: ignore[misc]
