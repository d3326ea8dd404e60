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
from django_gomq.bus.counts import (
    MAX_ERROR_TYPES,
    OPERATION_BUCKETS,
    OTHER,
    HistogramState,
)
from django_gomq.bus.delivery import DropReason, Verdict
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.stats import BrokerStats, ConsumerStats, QueueStats

from .catalogue import About, Catalogue, Kind, Numbers
from .labels import Labels


class Families(Catalogue):
    """All metrics of one scrape, empty, as the client library has them."""

    def __init__(self, *, fine: bool = False) -> None:
        """With ``fine`` histograms have all the buckets that are counted by."""
        self.by_name: dict[str, Any] = {}
        self._kinds = {**_FAMILIES, "histogram": _Fine} if fine else _FAMILIES
        super().__init__(self._add)

    def _add(self, about: About) -> Metric:
        made = self._kinds[about.kind](about.name, about.text, labels=about.labels)
        self.by_name[about.name] = made
        return made

    def all(self) -> list[Metric]:
        """Return every family, in the order of the catalogue."""
        return list(self.by_name.values())


class _Shown(HistogramMetricFamily):
    """A histogram by the bounds that are for Prometheus."""

    def add_state(
        self, labels: Sequence[str], state: HistogramState, bounds: tuple[float, ...]
    ) -> None:
        shown = state.within(bounds)
        self.add_metric(labels, _buckets(shown), shown.sum_seconds)


class _Fine(HistogramMetricFamily):
    """A histogram by all bounds."""

    def add_state(
        self, labels: Sequence[str], state: HistogramState, bounds: tuple[float, ...]
    ) -> None:
        self.add_metric(labels, _buckets(state), state.sum_seconds)


_FAMILIES: Final[Mapping[Kind, Callable[..., Metric]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": _Shown,
}


REFUSALS: Final = ("queue_full", "timeout", "closed", "not_running")
"""Why every broker may refuse; one with a server does where that is away, too."""

Bucket = tuple[str, float] | tuple[str, float, Exemplar]
_NO_QUEUE: Final = QueueStats()
_as_text: Callable[[float], str] = floatToGoString


def add_broker(
    out: Catalogue,
    broker: Broker,
    labels: Labels,
    *,
    undeclared: int = 0,
    has_timers: bool = True,
) -> None:
    """Add the values of every metric that is about this broker.

    So many event types that nobody declared are labels of their own, others share one.
    Without its timers what is delayed or failed comes no more: it counts as down.
    """
    stats = broker.stats()
    backend = broker.backend_name
    consumers = {consumer.name: consumer for consumer in broker.consumers}
    events = dict.fromkeys([*broker.declared(), OTHER])
    for consumer in consumers.values():
        events.update(dict.fromkeys(_exact(consumer.types)))
    queues = dict.fromkeys(events, _NO_QUEUE)
    for event, queue in stats.queues.items():
        label = event
        if event not in events:
            label = labels.of((broker.alias, "event"), event, undeclared)
        before = queues.get(label, _NO_QUEUE)
        queues[label] = queue if before is _NO_QUEUE else _add_queues(before, queue)
    _add_events(out, broker.alias, queues, consumers.values())
    if broker.capabilities.settles:
        _add_server_events(out, broker.alias, queues)
        _add_claims(out, broker.alias, stats.consumers)
        _add_server(out, broker.alias, stats)
    for name, numbers in stats.consumers.items():
        where = [broker.alias, name]
        consumer = consumers[name]
        _add_consumer(out, where, numbers)
        if broker.capabilities.spills(consumer):
            out.spilled.add_metric(where, numbers.spilled)
        _add_exceptions(out, where, numbers.exceptions, labels)
        out.wait.add_state(where, numbers.wait, broker.wait_buckets)
        out.duration.add_state(where, numbers.duration, broker.handler_buckets)
        _add_pairs(out, where, consumer, _events_of(consumer, queues), numbers)
        out.info.add_metric([*where, backend, consumer.severity], 1)
    is_down = stats.started and not (stats.reader_up and has_timers)
    out.dispatcher_up.add_metric([broker.alias], not is_down)


def _add_queues(first: QueueStats, other: QueueStats) -> QueueStats:
    numbers = {name: getattr(first, name) + getattr(other, name) for name in _ADDED}
    return QueueStats(
        **numbers,
        refused=Counter(first.refused) + Counter(other.refused),
        oldest_age=max(first.oldest_age, other.oldest_age),
    )


_ADDED: Final = tuple(set(QueueStats.__struct_fields__) - {"refused", "oldest_age"})


def _add_events(
    out: Catalogue,
    alias: str,
    queues: Mapping[str, QueueStats],
    consumers: Iterable[Consumer],
) -> None:
    consumed: set[str] = set()
    for consumer in consumers:
        consumed.update(_events_of(consumer, queues))
    for event, queue in queues.items():
        where = [alias, event]
        out.published.add_metric(where, queue.published)
        if queue.unconsumed or event not in consumed:
            out.unconsumed.add_metric(where, queue.unconsumed)
        out.rolled_back.add_metric(where, queue.rolled_back)
        for reason in dict.fromkeys((*REFUSALS, *queue.refused)):
            out.refused.add_metric([*where, reason], queue.refused.get(reason, 0))
        if queue.capacity or event in consumed:  # a type of nobody has no queue
            out.queue_depth.add_metric(where, queue.depth)
            out.queue_capacity.add_metric(where, queue.capacity)
            out.queue_oldest_age.add_metric(where, queue.oldest_age)
            out.delayed.add_metric(where, queue.delayed)


def _add_server_events(
    out: Catalogue, alias: str, queues: Mapping[str, QueueStats]
) -> None:
    for event, queue in queues.items():
        out.unknown.add_metric([alias, event], queue.unknown)
        if "unavailable" not in queue.refused:
            out.refused.add_metric([alias, event, "unavailable"], 0)


def _add_claims(
    out: Catalogue, alias: str, consumers: Mapping[str, ConsumerStats]
) -> None:
    for name, numbers in consumers.items():
        where = [alias, name]
        out.fetched.add_metric(where, sum(numbers.dispatched.values()))
        out.handed_back.add_metric(where, numbers.handed_back)
        out.lost_leases.add_metric(where, numbers.lost_leases)


def _add_server(out: Catalogue, alias: str, stats: BrokerStats) -> None:
    """Add what the server holds, as far as it says and this process has asked."""
    server, broker = stats.server, [alias]
    out.backend_up.add_metric(broker, stats.server_up)
    out.reconnects.add_metric(broker, stats.reconnects)
    for operation, state in stats.operations.items():
        out.operations.add_state([alias, operation], state, OPERATION_BUCKETS)
    lives = server.processes
    if lives is not None:
        out.server_processes.add_metric(
            broker, sum(not process.is_late for process in lives)
        )
    found: list[tuple[Numbers, list[str], float | None]] = [
        (out.server_processes_died, broker, server.found_dead),
        (out.outbox_depth, broker, server.outbox_depth),
        (out.outbox_oldest_age, broker, server.outbox_oldest_age),
        (out.outbox_refused, broker, server.outbox_refused),
        (out.relay_up, broker, server.is_relayed),
    ]
    for name, numbers in server.consumers.items():
        where = [alias, name]
        found += [
            (out.server_depth, where, numbers.ready),
            (out.server_pending, where, numbers.held),
            (out.server_trimmed, where, numbers.trimmed),
            (out.server_scheduled, where, numbers.scheduled),
            (out.server_oldest_age, where, numbers.oldest_age),
            (out.server_dead_letters, where, numbers.dead),
            (out.server_workers, where, numbers.workers),
        ]
    for metric, labels, value in found:
        if value is not None:
            metric.add_metric(labels, value)


def _add_consumer(out: Catalogue, where: list[str], numbers: ConsumerStats) -> None:
    out.channel_depth.add_metric(where, numbers.depth)
    out.channel_capacity.add_metric(where, numbers.capacity)
    out.oldest_age.add_metric(where, numbers.oldest_age)
    out.scheduled.add_metric(where, numbers.scheduled)
    out.in_flight.add_metric(where, numbers.in_flight)
    out.channel_fill.add_metric(where, numbers.fill)
    out.running.add_metric(where, numbers.running_seconds)
    out.retries.add_metric(where, numbers.retries)
    out.dead_lettered.add_metric(where, numbers.dead_lettered)
    out.paused.add_metric(where, numbers.paused)
    if numbers.last_success is not None:
        out.last_success.add_metric(where, numbers.last_success)


def _add_exceptions(
    out: Catalogue, where: list[str], exceptions: Mapping[str, int], labels: Labels
) -> None:
    alias, name = where
    counts: Counter[str] = Counter()
    for error_type, count in exceptions.items():
        label = error_type
        if error_type != OTHER:
            subject = alias, "error", name
            label = labels.of(subject, error_type, MAX_ERROR_TYPES)
        counts[label] += count
    for label, count in counts.items():
        out.exceptions.add_metric([*where, label], count)


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
    # What a stop drops is counted as its process ends, and nobody sees it at 0 before.
    reasons = [
        reason for reason in consumer.drop_reasons if reason is not DropReason.SHUTDOWN
    ]
    dropped = _from_zero(events, reasons, numbers.dropped.items())
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


def _buckets(state: HistogramState) -> Sequence[Bucket]:
    total = 0
    buckets: list[Bucket] = []
    for index, (bound, count) in enumerate(
        zip(bound_texts(state.bounds), state.counts, strict=True)
    ):
        total += count
        seen = state.exemplars.get(index)
        if seen is None:
            buckets.append((bound, total))
        else:
            trace = {"trace_id": seen.trace_id}
            buckets.append((bound, total, Exemplar(trace, seen.value, seen.timestamp)))
    return buckets


@functools.lru_cache(64)
def bound_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    """Return how the bounds are written, and at the end what exceeds them all."""
    return tuple(_as_text(bound) for bound in (*bounds, float("inf")))
