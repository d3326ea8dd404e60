from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest

from django_gomq.bus.delivery import (
    ACK,
    EXPIRED,
    Ack,
    BatchFailed,
    Dropped,
    DropReason,
    Reject,
    RetryAfter,
    RetryLater,
    Verdict,
)
from django_gomq.bus.errors import ConfigurationError


def pickled(raised: Exception) -> Any:
    return pickle.loads(pickle.dumps(raised))


@pytest.mark.parametrize("copied", [copy.copy, pickled])
@pytest.mark.parametrize(
    "raised",
    [RetryLater(5), RetryLater(timedelta(seconds=5)), Reject("why"), BatchFailed({})],
    ids=repr,
)
def test_what_a_handler_raises_survives_the_way_to_another_process(
    raised: Exception, copied: Any
) -> None:
    other = copied(raised)

    assert type(other) is type(raised)
    assert (str(other), vars(other)) == (str(raised), vars(raised))


@pytest.mark.parametrize("seconds", [0, 0.5, 86_400])
def test_a_handler_can_ask_for_another_time(seconds: float) -> None:
    asked = RetryLater(seconds)

    assert asked.seconds == seconds
    assert str(asked) == f"again in {seconds} s"


def test_another_time_may_be_a_timedelta() -> None:
    assert RetryLater(timedelta(minutes=2)).seconds == 120


@pytest.mark.parametrize(
    "seconds",
    [-1, float("inf"), float("nan"), "soon", None, True, timedelta(-1), 10**400],
    ids=lambda seconds: repr(seconds)[:20],
)
def test_another_time_lies_ahead(seconds: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"RetryLater\(.*takes a number of seconds from 0, or"
    ):
        RetryLater(seconds)


def test_a_batch_says_which_of_its_messages_failed() -> None:
    errors: dict[str, BaseException] = {"1": ValueError("a"), "2": KeyError("b")}

    failed = BatchFailed(errors)

    assert failed.errors == errors
    assert str(failed) == "2 messages of the batch failed"


@pytest.mark.parametrize(
    "errors",
    [None, "all", ["1"], {"1": "why"}, {1: ValueError()}, ValueError("a")],
    ids=repr,
)
def test_a_batch_names_errors_by_the_ids_of_messages(errors: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"BatchFailed\({message.id: error"):
        BatchFailed(errors)


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
