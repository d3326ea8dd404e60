from __future__ import annotations

from typing import Any

from django_gomq.bus.counts import FINE_BUCKETS
from django_gomq.live.reading import BAR_SECONDS
from django_gomq.live.times import POINTS, times_of
from django_gomq.operations.moments import ConsumerCounted, Counted, Tick

KEY = "default", "lab.analysis"
UNTIL = 1_001  # the number of a bar, the second of a point


def tick(ended: float, slot: int = 1, **counts: Any) -> Tick:
    consumers = {KEY[0]: {KEY[1]: ConsumerCounted(**counts)}}
    return Tick(
        slot=slot, ended=ended, seconds=2.0, counted=Counted(consumers=consumers)
    )


def test_each_point_has_the_quantiles_of_its_ten_seconds_in_all_processes() -> None:
    now = (UNTIL + 1) * BAR_SECONDS
    ticks = [
        tick(now - 295, wait={3: 1}),
        tick(now - 2, wait={10: 99}, duration={4: 1}),
        tick(now - 1, slot=2, wait={20: 1}),
    ]

    found = times_of(ticks, KEY, UNTIL)

    assert [one is not None for one in found.wait.p50] == [
        True,
        *[False] * (POINTS - 2),
        True,
    ]
    last = found.wait.p50[-1], found.wait.p99[-1], found.handler.p50[-1]
    assert last[0] is not None
    assert FINE_BUCKETS[9] < last[0] <= FINE_BUCKETS[10]
    assert last[1] is not None
    assert FINE_BUCKETS[9] < last[1] <= FINE_BUCKETS[20]
    assert last[2] is not None
    assert FINE_BUCKETS[3] < last[2] <= FINE_BUCKETS[4]


def test_what_is_older_newer_or_of_others_is_left_out() -> None:
    now = (UNTIL + 1) * BAR_SECONDS
    ticks = [tick(now - 301, wait={3: 1}), tick(now + 1, wait={3: 1})]

    others = times_of([tick(now - 2, wait={3: 1})], ("default", "other"), UNTIL)

    for found in (times_of(ticks, KEY, UNTIL), others):
        assert set(found.wait.p50) == {None}
