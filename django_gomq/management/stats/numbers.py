"""The numbers on a metrics page, with their rates, quantiles and limits."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.metrics_core import Metric

FINE: Final = 0
OVER: Final = 1
"""Something is above a limit."""
CANNOT_READ: Final = 2


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
    """All that ``stats`` tells of one snapshot."""

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
        return {key: _quantiles(sorted(item.items())) for key, item in found.items()}


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
            failed=sum(
                outcomes.get(key, _NO_COUNTS).get(outcome, 0) for outcome in _FAILURES
            ),
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


Rate = Mapping[Key, float]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Counts a second; what is new since the earlier snapshot has none."""

    handled: Rate
    failed: Rate
    published: Rate


def rates_between(earlier: Numbers, later: Numbers, seconds: float) -> Rates | None:
    """Return the rates, or None where the two are not numbers of the same processes."""
    is_other = (earlier.started, earlier.processes) != (later.started, later.processes)
    if is_other or seconds <= 0:
        return None

    def rate(count: Callable[[Numbers], Mapping[Key, int]]) -> Rate:
        before = count(earlier)
        return {
            key: max(0, number - before[key]) / seconds
            for key, number in count(later).items()
            if key in before
        }

    return Rates(
        handled=rate(
            lambda numbers: {key_of(row): row.handled for row in numbers.consumers}
        ),
        failed=rate(
            lambda numbers: {key_of(row): row.failed for row in numbers.consumers}
        ),
        published=rate(
            lambda numbers: {key_of(row): row.published for row in numbers.events}
        ),
    )


def key_of(row: ConsumerNumbers | EventNumbers) -> Key:
    """Return what tells a row from others of its kind."""
    name = row.consumer if isinstance(row, ConsumerNumbers) else row.event
    return row.broker, name


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is still fine; None: anything."""

    max_depth: int | None = None
    """Of each queue and of each channel."""
    max_age: float | None = None
    """Seconds that the oldest message of a channel may have waited."""

    def exceeded_by(self, numbers: Numbers) -> Iterator[str]:
        """Yield a sentence for each number above its limit."""
        if self.max_depth is not None:
            yield from self._too_deep(numbers, self.max_depth)
        if self.max_age is not None:
            for consumer in numbers.consumers:
                if consumer.oldest_age_seconds > self.max_age:
                    yield (
                        f"The oldest message of consumer {consumer.consumer!r} on "
                        f"broker {consumer.broker!r} has waited "
                        f"{consumer.oldest_age_seconds:.1f} s, "
                        f"more than {self.max_age:g}."
                    )

    def _too_deep(self, numbers: Numbers, limit: int) -> Iterator[str]:
        queues = [("Queue", event.event, event) for event in numbers.events]
        channels = [
            ("Channel", consumer.consumer, consumer) for consumer in numbers.consumers
        ]
        rows: list[tuple[str, str, EventNumbers | ConsumerNumbers]]
        rows = [*queues, *channels]
        for kind, name, row in rows:
            if row.depth > limit:
                yield (
                    f"{kind} {name!r} on broker {row.broker!r} holds {row.depth} "
                    f"messages, more than {limit}."
                )


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one reading, and what follows from them."""

    source: str
    """An address or a directory."""
    numbers: Numbers
    rates: Rates | None = None
    """Since the reading before."""
    over: Sequence[str] = ()
    """What is above its limit, in sentences."""

    @property
    def exit_code(self) -> int:
        """Of a command that ends here."""
        return OVER if self.over else FINE

    def with_rates(self, rates: Rates | None) -> Snapshot:
        """Return the same snapshot with rates."""
        return msgspec.structs.replace(self, rates=rates)
