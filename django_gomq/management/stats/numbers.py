"""The numbers on a metrics page, with their rates, quantiles and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.metrics_core import Metric

from django_gomq.bus.counts import OTHER
from django_gomq.observability.metrics.samples import Key, SampleTable, estimate

FINE: Final = 0
OVER: Final = 1
"""Something is above a limit."""
CANNOT_READ: Final = 2


_FAILURES: Final = ("error", "timeout", "rejected")


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
    spilled: int = 0
    """In the database, where its overflow is "spill"."""
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
    table = SampleTable(metrics)
    consumers = sorted({*table.sums("channel_depth", "consumer")})
    events = sorted({*table.sums("messages_published_total", "event")})
    return Numbers(
        processes=table.total("processes"),
        started=table.greatest("start_time_seconds"),
        consumers=_consumers(table, consumers),
        events=_events(table, events),
    )


def _all_quantiles(
    buckets: Mapping[Key, Sequence[tuple[float, float]]],
) -> Mapping[Key, Quantiles]:
    return {key: _quantiles(counts) for key, counts in buckets.items()}


def _quantiles(buckets: Sequence[tuple[float, float]]) -> Quantiles:
    return Quantiles(estimate(0.5, buckets), estimate(0.95, buckets))


_UNOBSERVED: Final = Quantiles(None, None)
_NO_COUNTS: Final[Mapping[str, int]] = {}


def _consumers(table: SampleTable, keys: Iterable[Key]) -> list[ConsumerNumbers]:
    def sums(name: str) -> Mapping[Key, int]:
        return table.sums(name, "consumer")

    depth, capacity = sums("channel_depth"), sums("channel_capacity")
    scheduled, in_flight = sums("messages_scheduled"), sums("messages_in_flight")
    retried, dead = sums("message_retries_total"), sums("messages_dead_lettered_total")
    spilled = sums("messages_spilled")
    outcomes = table.split("messages_processed_total", "consumer", "outcome")
    dropped = table.split("messages_dropped_total", "consumer", "reason")
    ages = table.greatest_by("channel_oldest_age_seconds", "consumer")
    paused = table.greatest_by("consumer_paused", "consumer")
    wait = _all_quantiles(table.buckets("message_wait_seconds"))
    duration = _all_quantiles(table.buckets("handler_duration_seconds"))
    return [
        ConsumerNumbers(
            broker=key[0],
            consumer=key[1],
            depth=depth.get(key, 0),
            capacity=capacity.get(key, 0),
            scheduled=scheduled.get(key, 0),
            in_flight=in_flight.get(key, 0),
            spilled=spilled.get(key, 0),
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


def _events(table: SampleTable, keys: Iterable[Key]) -> list[EventNumbers]:
    def sums(name: str) -> Mapping[Key, int]:
        return table.sums(name, "event")

    published, unconsumed = (
        sums("messages_published_total"),
        sums("messages_unconsumed_total"),
    )
    rolled_back, delayed = sums("messages_rolled_back_total"), sums("messages_delayed")
    depth, capacity = sums("queue_depth"), sums("queue_capacity")
    refused = table.split("messages_refused_total", "event", "reason")
    rows = [
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
    return [row for row in rows if row.event != OTHER or _has_counts(row)]


def _has_counts(row: EventNumbers) -> bool:
    counts = (row.published, row.unconsumed, row.rolled_back, *row.refused.values())
    return any(counts)


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
