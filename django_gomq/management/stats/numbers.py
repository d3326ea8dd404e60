"""The numbers of consumers and events, out of samples; it knows no source of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.metrics_core import Metric

from .quantiles import estimate

PREFIX: Final = "gomq_"
_FAILURES: Final = ("error", "timeout", "rejected")

Key = tuple[str, str]
"""Broker, and consumer or event."""
Samples = Sequence[tuple[Mapping[str, str], float]]


class Quantiles(msgspec.Struct, frozen=True):
    """Seconds, estimated from buckets; None where nothing was observed."""

    p50: float | None
    p95: float | None


class ConsumerNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer; what counts from the start, and what is so now."""

    broker: str
    consumer: str
    depth: int
    capacity: int
    scheduled: int
    in_flight: int
    oldest_age_seconds: float
    paused: bool
    handled: int
    """Attempts that succeeded."""
    failed: int
    """Attempts that did not, those that are tried again included."""
    retried: int
    dead_lettered: int
    dropped: Mapping[str, int]
    """By reason."""
    wait_seconds_est: Quantiles
    handler_seconds_est: Quantiles


class EventNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """One event type; what counts from the start, and what is so now."""

    broker: str
    event: str
    published: int
    refused: Mapping[str, int]
    """By reason."""
    unconsumed: int
    rolled_back: int
    depth: int
    capacity: int
    """0 where no queue is, as nobody listens."""
    delayed: int


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``stats`` tells of one moment."""

    processes: int
    """How many processes these are the numbers of."""
    started: float
    """When the latest of them began to count, in seconds since 1970."""
    consumers: Sequence[ConsumerNumbers]
    events: Sequence[EventNumbers]


def take(metrics: Iterable[Metric]) -> Numbers:
    """Return the numbers of these metrics, whoever else's are among them.

    Raises ValueError, OverflowError or KeyError for what no count is.
    """
    table = _Table(metrics)
    consumers = sorted({*table.sums("channel_depth", "consumer")})
    events = sorted({*table.sums("messages_published_total", "event")})
    return Numbers(
        processes=table.total("processes"),
        started=table.greatest("start_time_seconds"),
        consumers=_consumers(table, consumers),
        events=_events(table, events),
    )


class _Table:
    """Samples by the name of their series, to be added up."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]]
        self._samples = defaultdict(list)
        for metric in metrics:
            for sample in metric.samples:
                if sample.name.startswith(PREFIX):
                    name = sample.name.removeprefix(PREFIX)
                    self._samples[name].append((sample.labels, sample.value))

    def of(self, name: str) -> Samples:
        return self._samples.get(name, ())

    def total(self, name: str) -> int:
        return int(sum(value for _, value in self.of(name)))

    def greatest(self, name: str) -> float:
        return max((value for _, value in self.of(name)), default=0.0)

    def sums(self, name: str, subject: str) -> Mapping[Key, int]:
        found: Counter[Key] = Counter()
        for labels, value in self.of(name):
            found[_key(labels, subject)] += int(value)
        return found

    def values(self, name: str, subject: str) -> Mapping[Key, float]:
        return {_key(labels, subject): value for labels, value in self.of(name)}

    def split(self, name: str, subject: str, by: str) -> Mapping[Key, Counter[str]]:
        found: dict[Key, Counter[str]] = defaultdict(Counter)
        for labels, value in self.of(name):
            found[_key(labels, subject)][labels.get(by, "")] += int(value)
        return found

    def quantiles(self, name: str) -> Mapping[Key, Quantiles]:
        found: dict[Key, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for labels, value in self.of(f"{name}_bucket"):
            found[_key(labels, "consumer")][float(labels["le"])] += int(value)
        return {key: _quantiles(sorted(one.items())) for key, one in found.items()}


def _key(labels: Mapping[str, str], subject: str) -> Key:
    return labels.get("broker", ""), labels.get(subject, "")


def _quantiles(buckets: Sequence[tuple[float, float]]) -> Quantiles:
    return Quantiles(estimate(0.5, buckets), estimate(0.95, buckets))


_UNOBSERVED: Final = Quantiles(None, None)
_NO_COUNTS: Final[Mapping[str, int]] = {}


def _consumers(table: _Table, keys: Iterable[Key]) -> list[ConsumerNumbers]:
    def sums(name: str) -> Mapping[Key, int]:
        return table.sums(name, "consumer")

    depth, capacity = sums("channel_depth"), sums("channel_capacity")
    scheduled, in_flight = sums("messages_scheduled"), sums("messages_in_flight")
    retried, dead = sums("message_retries_total"), sums("messages_dead_lettered_total")
    outcomes = table.split("messages_processed_total", "consumer", "outcome")
    dropped = table.split("messages_dropped_total", "consumer", "reason")
    ages = table.values("channel_oldest_age_seconds", "consumer")
    paused = table.values("consumer_paused", "consumer")
    wait = table.quantiles("message_wait_seconds")
    duration = table.quantiles("handler_duration_seconds")
    return [
        ConsumerNumbers(
            broker=key[0],
            consumer=key[1],
            depth=depth.get(key, 0),
            capacity=capacity.get(key, 0),
            scheduled=scheduled.get(key, 0),
            in_flight=in_flight.get(key, 0),
            oldest_age_seconds=ages.get(key, 0.0),
            paused=paused.get(key, 0.0) > 0,
            handled=outcomes.get(key, _NO_COUNTS).get("success", 0),
            failed=sum(outcomes.get(key, _NO_COUNTS).get(one, 0) for one in _FAILURES),
            retried=retried.get(key, 0),
            dead_lettered=dead.get(key, 0),
            dropped=dict(dropped.get(key, _NO_COUNTS)),
            wait_seconds_est=wait.get(key, _UNOBSERVED),
            handler_seconds_est=duration.get(key, _UNOBSERVED),
        )
        for key in keys
    ]


def _events(table: _Table, keys: Iterable[Key]) -> list[EventNumbers]:
    def sums(name: str) -> Mapping[Key, int]:
        return table.sums(name, "event")

    published, unconsumed = (
        sums("messages_published_total"),
        sums("messages_unconsumed_total"),
    )
    rolled_back, delayed = sums("messages_rolled_back_total"), sums("messages_delayed")
    depth, capacity = sums("queue_depth"), sums("queue_capacity")
    refused = table.split("messages_refused_total", "event", "reason")
    return [
        EventNumbers(
            broker=key[0],
            event=key[1],
            published=published.get(key, 0),
            refused=dict(refused.get(key, _NO_COUNTS)),
            unconsumed=unconsumed.get(key, 0),
            rolled_back=rolled_back.get(key, 0),
            depth=depth.get(key, 0),
            capacity=capacity.get(key, 0),
            delayed=delayed.get(key, 0),
        )
        for key in keys
    ]
