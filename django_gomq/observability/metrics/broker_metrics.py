"""What one broker says of itself, as metric families."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.counts import OTHER, HistogramState
from django_gomq.bus.delivery import Verdict
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.stats import BrokerStats, ConsumerStats, QueueStats

from .catalogue import About, Catalogue, Distributions, Kind


class Families(Catalogue):
    """All metrics of one scrape, empty, as the client library has them."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}
        super().__init__(self._add)

    def _add(self, about: About) -> Metric:
        made = _FAMILIES[about.kind](about.name, about.text, labels=about.labels)
        self.by_name[about.name] = made
        return made

    def all(self) -> list[Metric]:
        """Return every family, in the order of the catalogue."""
        return list(self.by_name.values())


_FAMILIES: Final[Mapping[Kind, Callable[..., Metric]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


REFUSALS: Final = ("queue_full", "timeout", "closed", "not_running")
"""Why every broker may refuse; one with a server does where that is away, too."""

_NO_QUEUE: Final = QueueStats()
_as_text: Callable[[float], str] = floatToGoString


def add_broker(out: Catalogue, broker: Broker, *, has_timers: bool = True) -> None:
    """Add the values of every metric that is about this broker.

    Without its timers what is delayed or failed comes no more: it counts as down.
    """
    stats = broker.stats()
    backend = broker.backend_name
    consumers = {consumer.name: consumer for consumer in broker.consumers}
    events = dict.fromkeys(stats.queues)
    for consumer in consumers.values():
        events.update(dict.fromkeys(_exact(consumer.types)))
    _add_events(out, broker.alias, stats, list(events), consumers.values())
    if broker.capabilities.settles:
        _add_server_events(out, broker.alias, stats, events)
    for name, numbers in stats.consumers.items():
        where = [broker.alias, name]
        consumer = consumers[name]
        _add_consumer(out, where, numbers)
        _add_pairs(out, where, consumer, _events_of(consumer, events), numbers)
        out.info.add_metric([*where, backend, consumer.severity], 1)
    is_down = stats.started and not (stats.reader_up and has_timers)
    out.dispatcher_up.add_metric([broker.alias], not is_down)


def _add_events(
    out: Catalogue,
    alias: str,
    stats: BrokerStats,
    events: Sequence[str],
    consumers: Iterable[Consumer],
) -> None:
    consumed: set[str] = set()
    for consumer in consumers:
        consumed.update(_events_of(consumer, events))
    for event in events:
        queue = stats.queues.get(event, _NO_QUEUE)
        where = [alias, event]
        out.published.add_metric(where, queue.published)
        out.unconsumed.add_metric(where, queue.unconsumed)
        out.rolled_back.add_metric(where, queue.rolled_back)
        for reason in dict.fromkeys((*REFUSALS, *queue.refused)):
            out.refused.add_metric([*where, reason], queue.refused.get(reason, 0))
        if queue.capacity or event in consumed:  # a type of nobody has no queue
            out.queue_depth.add_metric(where, queue.depth)
            out.queue_capacity.add_metric(where, queue.capacity)
            out.delayed.add_metric(where, queue.delayed)


def _add_server_events(
    out: Catalogue, alias: str, stats: BrokerStats, events: Iterable[str]
) -> None:
    for event in events:
        queue = stats.queues.get(event, _NO_QUEUE)
        out.unknown.add_metric([alias, event], queue.unknown)
        if "unavailable" not in queue.refused:
            out.refused.add_metric([alias, event, "unavailable"], 0)


def _add_consumer(out: Catalogue, where: list[str], numbers: ConsumerStats) -> None:
    out.channel_depth.add_metric(where, numbers.depth)
    out.channel_capacity.add_metric(where, numbers.capacity)
    out.oldest_age.add_metric(where, numbers.oldest_age)
    out.scheduled.add_metric(where, numbers.scheduled)
    out.in_flight.add_metric(where, numbers.in_flight)
    out.retries.add_metric(where, numbers.retries)
    out.dead_lettered.add_metric(where, numbers.dead_lettered)
    out.paused.add_metric(where, numbers.paused)
    _add_histogram(out.wait, where, numbers.wait)
    _add_histogram(out.duration, where, numbers.duration)
    for error_type, count in numbers.exceptions.items():
        out.exceptions.add_metric([*where, error_type], count)
    if numbers.last_success is not None:
        out.last_success.add_metric(where, numbers.last_success)


def _add_pairs(
    out: Catalogue,
    where: list[str],
    consumer: Consumer,
    events: Sequence[str],
    numbers: ConsumerStats,
) -> None:
    alias, name = where
    processed = _from_zero(events, _verdicts_of(consumer), numbers.processed.items())
    for (event, verdict), count in processed.items():
        out.processed.add_metric([alias, event, name, verdict], count)
    dropped = _from_zero(events, consumer.drop_reasons, numbers.dropped.items())
    for (event, reason), count in dropped.items():
        out.dropped.add_metric([alias, event, name, reason], count)


def _from_zero(
    events: Sequence[str],
    kinds: Iterable[str],
    counted: Iterable[tuple[tuple[str, str], int]],
) -> Counter[tuple[str, str]]:
    """Return what was counted, and 0 for all that can be; unknown events share one."""
    numbers = Counter({(event, kind): 0 for kind in kinds for event in events})
    known = set(events)
    for (event, kind), count in counted:
        numbers[event if event in known else OTHER, kind] += count
    return numbers


def _verdicts_of(consumer: Consumer) -> tuple[Verdict, ...]:
    possible = (Verdict.SUCCESS, Verdict.ERROR, Verdict.REJECTED)
    if consumer.timeout is not None and consumer.is_async:
        return (*possible, Verdict.TIMEOUT)
    return possible


def _events_of(consumer: Consumer, known: Iterable[str]) -> list[str]:
    """Return the event types whose messages may come to this consumer."""
    events = dict.fromkeys(_exact(consumer.types))
    patterns = _patterns(consumer.types)
    if patterns:
        for event in known:
            if event == OTHER or any(pattern.matches(event) for pattern in patterns):
                events[event] = None
    return list(events)


@functools.lru_cache(1024)
def _exact(types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in types if Pattern(text).is_exact)


@functools.lru_cache(1024)
def _patterns(types: tuple[str, ...]) -> tuple[Pattern, ...]:
    return tuple(pattern for pattern in map(Pattern, types) if not pattern.is_exact)


def _add_histogram(
    family: Distributions, where: list[str], state: HistogramState
) -> None:
    total = 0
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for index, (bound, count) in enumerate(
        zip(_texts(state.bounds), state.counts, strict=True)
    ):
        total += count
        seen = state.exemplars.get(index)
        if seen is None:
            buckets.append((bound, total))
        else:
            trace = {"trace_id": seen.trace_id}
            buckets.append((bound, total, Exemplar(trace, seen.value, seen.timestamp)))
    family.add_metric(where, buckets, state.sum_seconds)


@functools.lru_cache(64)
def _texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(_as_text(bound) for bound in (*bounds, float("inf")))
