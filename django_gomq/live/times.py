"""How long messages waited and were handled, over the last five minutes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec

from django_gomq.bus.counts import FINE_BUCKETS
from django_gomq.observability.metrics.samples import estimate
from django_gomq.operations.moments import Buckets, Key, Tick

from .reading import BAR_SECONDS, BARS

POINTS: Final = 30
"""Two bars each: of fewer messages the lines would be jagged."""
_POINT_SECONDS: Final = BARS / POINTS * BAR_SECONDS
_BOUNDS: Final = (*FINE_BUCKETS, math.inf)
_SHARES: Final = (0.5, 0.95, 0.99)


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds at each point, the oldest first; None where nothing was observed."""

    p50: Sequence[float | None]
    p95: Sequence[float | None]
    p99: Sequence[float | None]


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """The times of one consumer in all processes of a reading."""

    wait: Quantiles
    handler: Quantiles


def times_of(ticks: Iterable[Tick], key: Key, until: int) -> Times:
    """Return the times of a consumer, up to the bar of this number."""
    broker, consumer = key
    last = math.floor((until + 1) * BAR_SECONDS / _POINT_SECONDS)
    wait: list[dict[int, int]] = [{} for _ in range(POINTS)]
    handler: list[dict[int, int]] = [{} for _ in range(POINTS)]
    for tick in ticks:
        point = POINTS - (last - int(tick.ended // _POINT_SECONDS))
        counted = tick.counted.consumers.get(broker, {}).get(consumer)
        if counted is not None and 0 <= point < POINTS:
            _add(wait[point], counted.wait)
            _add(handler[point], counted.duration)
    return Times(wait=_quantiles(wait), handler=_quantiles(handler))


def _add(counts: dict[int, int], by: Buckets) -> None:
    for index, count in by.items():
        counts[index] = counts.get(index, 0) + count


def _quantiles(points: Sequence[Mapping[int, int]]) -> Quantiles:
    found = [_of_one(counts) for counts in points]
    p50, p95, p99 = zip(*found, strict=True)
    return Quantiles(p50=p50, p95=p95, p99=p99)


def _of_one(counts: Mapping[int, int]) -> Sequence[float | None]:
    if not counts:
        return (None,) * len(_SHARES)
    sums = accumulate(counts.get(index, 0) for index in range(len(_BOUNDS)))
    buckets = list(zip(_BOUNDS, sums, strict=True))
    return [estimate(share, buckets) for share in _SHARES]
