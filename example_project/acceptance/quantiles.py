"""Quantiles out of histogram buckets; it knows numbers and no metric."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Estimate a quantile from cumulative buckets, by linear interpolation.

    The rules are those of Prometheus' `histogram_quantile` for classic histograms
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile):
    observations are taken to be spread evenly inside a bucket; the lowest bucket begins
    at 0 if its upper bound is above 0; a quantile in the +Inf bucket is answered with
    the upper bound of the bucket before it; without observations it is NaN.
    """
    if len(buckets) < 2 or not math.isinf(buckets[-1][0]) or not buckets[-1][1]:
        return math.nan
    rank = q * buckets[-1][1]
    index = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    return _inside(rank, index, buckets)


def _inside(rank: float, index: int, buckets: Sequence[tuple[float, float]]) -> float:
    upper, count = buckets[index]
    if index == 0 and upper <= 0:
        return upper
    lower, below = buckets[index - 1] if index else (0.0, 0.0)
    if count == below:
        return upper
    return lower + (upper - lower) * (rank - below) / (count - below)
