"""From samples to numbers, quantiles, rates and limits: no source is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from django_gomq.bus.counts import (
    FINE_BUCKETS,
    HANDLER_BUCKETS,
    WAIT_BUCKETS,
    Histogram,
)
from django_gomq.management.stats.numbers import (
    Limits,
    Numbers,
    Quantiles,
    rates_between,
    take,
)
from django_gomq.observability.metrics.samples import estimate

CONSUMER: Final = 'broker="default",consumer="audit"'
PAGE: Final = f"""\
# TYPE gomq_channel_depth gauge
gomq_channel_depth{{{CONSUMER}}} 3.0
# TYPE gomq_channel_oldest_age_seconds gauge
gomq_channel_oldest_age_seconds{{{CONSUMER}}} 1.5
# TYPE gomq_messages_processed_total counter
gomq_messages_processed_total{{{CONSUMER},event="a",outcome="success"}} 7.0
gomq_messages_processed_total{{{CONSUMER},event="b",outcome="success"}} 1.0
gomq_messages_processed_total{{{CONSUMER},event="a",outcome="error"}} 2.0
gomq_messages_processed_total{{{CONSUMER},event="a",outcome="rejected"}} 1.0
gomq_messages_processed_total{{{CONSUMER},event="a",outcome="timeout"}} 4.0
# TYPE gomq_messages_dropped_total counter
gomq_messages_dropped_total{{{CONSUMER},event="a",reason="channel_full"}} 2.0
gomq_messages_dropped_total{{{CONSUMER},event="b",reason="channel_full"}} 3.0
gomq_messages_dropped_total{{{CONSUMER},event="b",reason="shutdown"}} 0.0
# TYPE gomq_message_wait_seconds histogram
gomq_message_wait_seconds_bucket{{{CONSUMER},le="0.1"}} 10.0
gomq_message_wait_seconds_bucket{{{CONSUMER},le="1.0"}} 20.0
gomq_message_wait_seconds_bucket{{{CONSUMER},le="+Inf"}} 20.0
# TYPE gomq_messages_published_total counter
gomq_messages_published_total{{broker="default",event="a"}} 9.0
# TYPE gomq_queue_depth gauge
gomq_queue_depth{{broker="default",event="a"}} 4.0
# TYPE gomq_processes gauge
gomq_processes 2.0
# TYPE somebody_elses gauge
somebody_elses{{consumer="audit"}} NaN
"""


def numbers(page: str = PAGE) -> Numbers:
    return take(text_string_to_metric_families(page))


def test_a_consumers_numbers_are_added_up_over_its_events() -> None:
    (audit,) = numbers().consumers

    assert (audit.broker, audit.consumer, audit.depth) == ("default", "audit", 3)
    assert (audit.handled, audit.failed) == (8, 7)
    assert audit.dropped == {"channel_full": 5, "shutdown": 0}
    assert audit.oldest_age_seconds == 1.5


def test_quantiles_are_estimated_from_the_buckets() -> None:
    (audit,) = numbers().consumers

    assert audit.wait_seconds_est.p50 == pytest.approx(0.1)
    assert audit.wait_seconds_est.p95 == pytest.approx(0.1 * 10**0.9)
    assert audit.handler_seconds_est == Quantiles(None, None)


def test_an_events_numbers_are_those_of_its_queue() -> None:
    (event,) = numbers().events

    assert (event.event, event.published, event.depth) == ("a", 9, 4)
    assert numbers().processes == 2


@pytest.mark.parametrize(("count", "shown"), [(0, ["a"]), (1, ["_other", "a"])])
def test_names_that_nobody_declared_have_a_row_where_there_were_some(
    count: int, shown: list[str]
) -> None:
    line = f'gomq_messages_published_total{{broker="default",event="_other"}} {count}'
    page = PAGE.replace("# TYPE gomq_queue_depth", f"{line}\n# TYPE gomq_queue_depth")

    assert [event.event for event in numbers(page).events] == shown


def test_without_samples_of_ours_there_are_no_numbers() -> None:
    found = numbers("# TYPE up gauge\nup 1.0\n")

    assert (found.consumers, found.events, found.processes) == ([], [], 0)


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
@pytest.mark.parametrize("count", ["} 3.0", "} 20.0"])
def test_a_count_that_is_no_number_is_an_error(value: str, count: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        numbers(PAGE.replace(count, f"}} {value}"))


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, [(1.0, 10.0), (math.inf, 10.0)], 0.5),
        (0.95, [(1.0, 10.0), (2.0, 20.0), (math.inf, 20.0)], 2**0.9),
        (0.99, [(1.0, 10.0), (2.0, 10.0), (math.inf, 20.0)], 2.0),
        (0.5, [(1.0, 0.0), (2.0, 10.0), (math.inf, 10.0)], 2**0.5),
        (0.5, [(1.0, 0.0), (math.inf, 0.0)], None),
        (0.5, [(math.inf, 10.0)], None),
        (0.5, [(1.0, 10.0)], None),
        (0.5, [], None),
    ],
)
def test_a_quantile_lies_inside_its_bucket(
    q: float, buckets: list[tuple[float, float]], expected: float | None
) -> None:
    assert estimate(q, buckets) == pytest.approx(expected)


def test_a_rate_is_what_was_counted_between_by_seconds() -> None:
    earlier = numbers()
    later = numbers(PAGE.replace("} 7.0", "} 11.0").replace("} 9.0", "} 10.0"))

    rates = rates_between(earlier, later, 2.0)

    assert rates is not None
    assert rates.handled == {("default", "audit"): 2.0}
    assert rates.failed == {("default", "audit"): 0.0}
    assert rates.published == {("default", "a"): 0.5}


def test_processes_that_are_others_have_no_rates_between_them() -> None:
    earlier = numbers()

    assert rates_between(earlier, replace(earlier, started=5.0), 2.0) is None
    assert rates_between(earlier, replace(earlier, processes=3), 2.0) is None


def test_what_is_new_has_no_rate_yet() -> None:
    later = numbers()

    rates = rates_between(replace(later, consumers=[]), later, 2.0)

    assert rates is not None
    assert rates.handled == {}


@pytest.mark.parametrize(
    ("limits", "over"),
    [
        (Limits(), []),
        (Limits(max_depth=4, max_age=1.5), []),
        (Limits(max_depth=3), ["Queue 'a'"]),
        (Limits(max_depth=2), ["Queue 'a'", "Channel 'audit'"]),
        (Limits(max_age=1.4), ["The oldest message of consumer 'audit'"]),
        (Limits(max_age=0.0), ["The oldest message of consumer 'audit'"]),
    ],
)
def test_what_is_above_its_limit_is_named(limits: Limits, over: list[str]) -> None:
    found = list(limits.exceeded_by(numbers()))

    assert [one.partition(" on broker")[0] for one in found] == over


Estimate = Callable[[float, Sequence[tuple[float, float]]], float | None]


def worst_factor(estimate: Estimate, bounds: Sequence[float], q: float) -> float:
    """Return how far off a quantile is, of handlers that take a time by 10 %."""
    worst = 1.0
    seconds = 0.0005
    while seconds <= 60:
        values = [seconds * (0.9 + 0.2 * (index + 0.5) / 200) for index in range(200)]
        histogram = Histogram(FINE_BUCKETS)
        histogram.observe_all(list(values))
        counts = histogram.state().within(tuple(bounds)).counts
        found = estimate(
            q, list(zip([*bounds, math.inf], accumulate(counts), strict=True))
        )
        assert found is not None
        truth = values[int(q * 200)]
        worst = max(worst, found / truth, truth / found)
        seconds *= 1.01
    return worst


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_a_quantile_of_stats_is_off_by_less_than_a_third(q: float) -> None:
    assert worst_factor(estimate, FINE_BUCKETS, q) <= 1.3


def histogram_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Return what Prometheus makes of the buckets."""
    rank = q * buckets[-1][1]
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= rank:
            break
        lower, below = upper, count
    if math.isinf(upper):
        return lower
    return lower + (upper - lower) * (rank - below) / (count - below)


@pytest.mark.parametrize("buckets", [WAIT_BUCKETS, HANDLER_BUCKETS])
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_a_quantile_of_a_board_is_off_by_less_than_the_buckets_are_apart(
    buckets: Sequence[float], q: float
) -> None:
    assert worst_factor(histogram_quantile, buckets, q) <= 2.5
