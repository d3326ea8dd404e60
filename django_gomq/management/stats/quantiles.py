"""Quantiles out of histogram buckets; it knows numbers and no metric."""

from __future__ import annotations

import math
from collections.abc import Sequence


def estimate(q: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return about the value that a share ``q`` of all observations is not above.

    ``buckets`` are pairs of upper bound and cumulative count, sorted, the last bound
    infinite. As Prometheus' ``histogram_quantile`` does, it takes observations to be
    spread evenly inside a bucket, and answers with the highest finite bound for what is
    above that. None without observations.
    """
    if len(buckets) < 2 or not math.isinf(buckets[-1][0]) or buckets[-1][1] <= 0:  # noqa: PLR2004 - one finite bucket and the infinite
        return None
    rank = q * buckets[-1][1]
    index = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    lower, below = buckets[index - 1] if index else (0.0, 0.0)
    upper, count = buckets[index]
    if count == below:
        return upper
    return lower + (upper - lower) * (rank - below) / (count - below)
