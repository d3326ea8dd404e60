from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.counts import (
    FINE_BUCKETS,
    HANDLER_BUCKETS,
    WAIT_BUCKETS,
    Exemplar,
    Histogram,
    HistogramState,
)

BOUND = st.integers(1, 1000).map(lambda ms: ms / 1000)
BOUNDS = st.lists(BOUND, min_size=1, max_size=8, unique=True).map(sorted)
# Seconds from below nothing to far above all bounds, many of them exactly on one or
# as near to it as can be.
NEAR = st.builds(math.nextafter, BOUND, st.sampled_from([-1.0, 9.0]))
VALUE = st.floats(-2, 2) | BOUND | NEAR | st.just(0.0)
VALUES = st.lists(VALUE)


def count_naively(bounds: list[float], values: list[float]) -> tuple[int, ...]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        for index, bound in enumerate(bounds):
            if value <= bound:
                counts[index] += 1
                break
        else:
            counts[-1] += 1
    return tuple(counts)


def sum_naively(values: list[float]) -> float:
    return sum(max(0.0, value) for value in values)


@given(BOUNDS, st.lists(VALUES, max_size=4))
@settings(deadline=None)
def test_all_at_once_counts_as_one_by_one(
    bounds: list[float], batches: list[list[float]]
) -> None:
    values = [value for batch in batches for value in batch]
    histogram = Histogram(bounds)

    for batch in batches:
        histogram.observe_all(list(batch))

    state = histogram.state()
    assert state.counts == count_naively(bounds, values)
    assert state.sum_seconds == pytest.approx(sum_naively(values))


def test_a_clock_that_was_set_back_counts_as_no_wait() -> None:
    histogram = Histogram([0.001])

    histogram.observe_all([-5.0, 0.0005, 0.25])

    assert histogram.state().counts == (2, 1)
    assert histogram.state().sum_seconds == pytest.approx(0.2505)


@given(BOUNDS, st.floats(0, 2) | BOUND)
@settings(deadline=None)
def test_an_exemplar_lies_in_the_bucket_of_its_value(
    bounds: list[float], value: float
) -> None:
    histogram = Histogram(bounds)

    histogram.observe_all([value])
    histogram.keep_exemplar(value, "trace")

    state = histogram.state()
    assert [state.counts[index] for index in state.exemplars] == [1]


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram([0.001, 0.01])

    histogram.observe_all([0.001, 0.001_000_001, 0.010_000_001])

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

    histogram.keep_exemplar(0.0005, "first")
    histogram.keep_exemplar(0.0006, "second")
    histogram.keep_exemplar(1.0, "slow")

    exemplars = histogram.state().exemplars
    assert {index: (one.value, one.trace_id) for index, one in exemplars.items()} == {
        0: (0.0006, "second"),
        1: (1.0, "slow"),
    }
    assert all(before <= one.timestamp <= time.time() for one in exemplars.values())


def test_an_exemplar_on_a_bound_is_within_it() -> None:
    histogram = Histogram([0.001, 0.01])

    histogram.keep_exemplar(0.001, "trace")

    assert list(histogram.state().exemplars) == [0]


def test_a_state_does_not_change_later() -> None:
    histogram = Histogram([0.001])
    state = histogram.state()

    histogram.observe_all([1e-9])
    histogram.keep_exemplar(1e-9, "trace")

    assert (state.counts, state.exemplars) == ((0, 0), {})


def test_an_exemplar_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Exemplar(1.0, "trace", 0.0).value = 2.0  # type: ignore[misc]


@given(BOUNDS, st.data(), VALUES)
@settings(deadline=None)
def test_fewer_buckets_count_as_if_they_were_all(
    bounds: list[float], data: st.DataObject, values: list[float]
) -> None:
    shown = tuple(data.draw(st.lists(st.sampled_from(bounds), unique=True).map(sorted)))
    histogram = Histogram(bounds)

    histogram.observe_all(list(values))

    state = histogram.state().within(shown)
    assert state.bounds == shown
    assert state.counts == count_naively(list(shown), values)
    assert state.sum_seconds == histogram.state().sum_seconds


def test_of_fewer_buckets_each_has_its_latest_exemplar() -> None:
    when = {0: 2.0, 1: 7.0, 2: 5.0, 4: 1.0}
    seen = {index: Exemplar(0.0, f"at {one}", one) for index, one in when.items()}
    bounds, counts = (0.001, 0.01, 0.1, 1.0), (1, 1, 1, 0, 1)

    exemplars = HistogramState(bounds, counts, 9.0, seen).within((0.1,)).exemplars

    assert {index: one.trace_id for index, one in exemplars.items()} == {
        0: "at 7.0",
        1: "at 1.0",
    }


@pytest.mark.parametrize("buckets", [WAIT_BUCKETS, HANDLER_BUCKETS])
def test_the_default_buckets_are_14_out_of_48_from_a_millisecond_to_30_seconds(
    buckets: tuple[float, ...],
) -> None:
    assert len(buckets) == 14
    assert (buckets[0], buckets[-1]) == (0.001, 30.0)
    assert list(buckets) == sorted(set(buckets))
    assert len(FINE_BUCKETS) == 48
    assert set(buckets) < set(FINE_BUCKETS)
