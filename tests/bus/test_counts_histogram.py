from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.counts import (
    HANDLER_BUCKETS,
    NS,
    WAIT_BUCKETS,
    Exemplar,
    Histogram,
)

BOUNDS = st.lists(
    st.integers(1, 1000).map(lambda number: number / 1000),
    min_size=1,
    max_size=8,
    unique=True,
).map(sorted)
# Durations from nothing to far above all bounds, many of them exactly on one.
VALUES = st.lists(
    st.integers(0, 2 * NS) | st.integers(0, 1000).map(lambda ms: ms * 1_000_000)
)


def count_naively(bounds: list[float], values: list[int]) -> tuple[int, ...]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        for index, bound in enumerate(bounds):
            if value <= int(bound * NS):
                counts[index] += 1
                break
        else:
            counts[-1] += 1
    return tuple(counts)


@given(BOUNDS, st.lists(VALUES, max_size=4))
@settings(deadline=None)
def test_all_at_once_counts_as_one_by_one(
    bounds: list[float], batches: list[list[int]]
) -> None:
    values = [value for batch in batches for value in batch]
    histogram = Histogram(bounds)

    for batch in batches:
        histogram.observe_all(batch)

    state = histogram.state()
    assert state.counts == count_naively(bounds, values)
    assert state.sum_seconds == sum(values) / NS


@given(BOUNDS, st.integers(0, 2 * NS))
@settings(deadline=None)
def test_an_exemplar_lies_in_the_bucket_of_its_value(
    bounds: list[float], value: int
) -> None:
    histogram = Histogram(bounds)

    histogram.observe_all([value])
    histogram.keep_exemplar(value, "trace")

    state = histogram.state()
    assert [state.counts[index] for index in state.exemplars] == [1]


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram([0.001, 0.01])

    histogram.observe_all([1_000_000, 1_000_001, 10_000_001])

    assert histogram.state().counts == (1, 1, 1)


def test_nothing_observed_is_nothing() -> None:
    histogram = Histogram([0.001])

    histogram.observe_all([])

    state = histogram.state()
    assert (state.bounds, state.counts, state.sum_seconds) == ((0.001,), (0, 0), 0)
    assert state.exemplars == {}


def test_an_exemplar_is_the_latest_of_its_bucket() -> None:
    histogram = Histogram([0.001])
    before = time.time()

    histogram.keep_exemplar(500_000, "first")
    histogram.keep_exemplar(600_000, "second")
    histogram.keep_exemplar(NS, "slow")

    exemplars = histogram.state().exemplars
    assert {index: (one.value, one.trace_id) for index, one in exemplars.items()} == {
        0: (0.0006, "second"),
        1: (1.0, "slow"),
    }
    assert all(before <= one.timestamp <= time.time() for one in exemplars.values())


def test_an_exemplar_on_a_bound_is_within_it() -> None:
    histogram = Histogram([0.001, 0.01])

    histogram.keep_exemplar(1_000_000, "trace")

    assert list(histogram.state().exemplars) == [0]


def test_a_state_does_not_change_later() -> None:
    histogram = Histogram([0.001])
    state = histogram.state()

    histogram.observe_all([1])
    histogram.keep_exemplar(1, "trace")

    assert (state.counts, state.exemplars) == ((0, 0), {})


def test_an_exemplar_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Exemplar(1.0, "trace", 0.0).value = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("buckets", [WAIT_BUCKETS, HANDLER_BUCKETS])
def test_the_default_buckets_are_seven_that_grow(buckets: tuple[float, ...]) -> None:
    assert len(buckets) == 7
    assert list(buckets) == sorted(set(buckets))
