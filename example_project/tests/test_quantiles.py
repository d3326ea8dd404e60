"""Quantile estimates follow Prometheus' histogram_quantile."""

from __future__ import annotations

import math

import pytest

from acceptance.quantiles import quantile

INF = math.inf


@pytest.mark.parametrize(
    ("q", "expected"), [(0.5, 0.2), (0.25, 0.1), (0.75, 0.3), (0.05, 0.02), (1, 0.4)]
)
def test_a_quantile_is_interpolated_inside_its_bucket(
    q: float, expected: float
) -> None:
    buckets = [(0.2, 5.0), (0.4, 10.0), (INF, 10.0)]

    assert quantile(q, buckets) == pytest.approx(expected)


def test_a_quantile_above_all_buckets_is_the_highest_finite_bound() -> None:
    assert quantile(0.99, [(0.1, 1.0), (1.0, 2.0), (INF, 100.0)]) == 1.0


def test_the_first_bucket_begins_at_zero() -> None:
    assert quantile(0.5, [(0.1, 10.0), (INF, 10.0)]) == pytest.approx(0.05)


def test_a_first_bound_that_is_not_positive_is_its_own_estimate() -> None:
    assert quantile(0.5, [(-1.0, 10.0), (INF, 10.0)]) == -1.0


@pytest.mark.parametrize(
    "buckets", [[], [(0.1, 0.0), (INF, 0.0)], [(INF, 3.0)], [(0.1, 1.0), (0.2, 2.0)]]
)
def test_without_observations_or_bounds_there_is_no_estimate(
    buckets: list[tuple[float, float]],
) -> None:
    assert math.isnan(quantile(0.5, buckets))


def test_an_empty_bucket_is_skipped() -> None:
    buckets = [(0.1, 0.0), (0.2, 0.0), (0.3, 4.0), (INF, 4.0)]

    assert quantile(0.5, buckets) == pytest.approx(0.25)
