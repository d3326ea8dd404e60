"""The numbers of all brokers of this process, as Prometheus reads them."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.process.fork import current
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.stats import BrokerStats
from django_gomq.bus.worker.worker import THREADS, Worker

from .broker_metrics import Families, add_broker
from .catalogue import Catalogue
from .labels import Labels

logger = logging.getLogger("gomq.metrics")

_HOUSEKEEPING: Final = "Housekeeping"
"""The kind of what observers were to hear and did not."""
_FAILED: Final = "%s; further errors are only counted"


class IncompleteError(Exception):
    """Some numbers cannot be had now; without them sums would be too small."""


class Failures:
    """By kind, of this process. Thread-safe up to a count lost; never blocks."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._told: set[str] = set()

    def expect(self, kind: str) -> None:
        """Have this kind counted from 0, so that an alert sees its first failure."""
        self.counts[kind] += 0

    def note(self, kind: str, text: str) -> None:
        """Count the exception that is being handled; log the first with this text."""
        self.counts[kind] += 1
        if text not in self._told:
            self._told.add(text)
            error = sys.exc_info()[1]
            write_log(logger, logging.ERROR, _FAILED, text, error=error)

    def forget(self) -> None:
        """Start from 0 again, as in a forked child."""
        self.counts = Counter(dict.fromkeys(self.counts, 0))
        self._told = set()


class BusCollector(Collector):
    """Reads ``broker.stats()`` of every broker when Prometheus scrapes.

    Thread-safe. Making and registering one touches no broker; a scrape starts none.
    What goes wrong in a scrape is logged once, counted in
    ``gomq_telemetry_errors_total``, and never raised.
    """

    def __init__(
        self,
        get_brokers: Callable[[], Iterable[Broker]],
        get_worker: Callable[[], Worker | None] = lambda: None,
    ) -> None:
        self.get_brokers = get_brokers
        self.get_worker = get_worker
        self.failures = Failures()
        """What the metrics of this process failed at."""
        self.failures.expect(type(self).__name__)
        self.undeclared = 0
        """How many event types that nobody declared are labels of their own."""
        self._labels = Labels()
        self.generation = 0
        """How many times it was told what to show."""
        self.was_whole = True
        """Whether the latest ``read`` found everything."""
        self.killed = 0
        """Processes that this one found dead without a stop."""
        self._version = _version()
        self._process = current()
        self._started = time.time()

    def show(
        self,
        get_brokers: Callable[[], Iterable[Broker]],
        get_worker: Callable[[], Worker | None],
        undeclared: int,
    ) -> None:
        """Show other brokers from now on."""
        self.get_brokers, self.get_worker = get_brokers, get_worker
        self.undeclared = undeclared
        self._labels = Labels()
        self.generation += 1

    def describe(self) -> list[Metric]:
        """Return every metric without values, so that registering is no scrape."""
        return Families().all()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with the values of this moment."""
        out = Families()
        self.read(out)
        yield from out.all()

    def collect_fine(self) -> Iterator[Metric]:
        """Yield the same, with all the buckets that are counted by."""
        out = Families(fine=True)
        self.read(out)
        yield from out.all()

    def read(self, out: Catalogue, labels: Labels | None = None) -> None:
        """Give every metric the values of this moment, as far as they can be had.

        Without ``labels`` those of this process decide which names share one.
        """
        self._settle_in()
        self.was_whole = True
        watched: list[Hooks] = []
        chosen = self._labels if labels is None else labels
        self._guard(lambda: self._add_brokers(out, chosen, watched))
        self._guard(lambda: self._add_process(out, watched))
        self._guard(lambda: self._add_telemetry_errors(out, watched))

    def counted(self) -> int:
        """Return how much was counted so far: 0 for nothing. Begins no broker's life.

        Two numbers that are equal mean that nothing was counted between.
        """
        if self.get_worker() is None:
            return 0
        return sum(_counted(broker.stats()) for broker in self.get_brokers())

    def _settle_in(self) -> None:
        if current() is not self._process:  # made before a fork
            self._process = current()
            self._started = time.time()
            self._labels = Labels()
            self.failures.forget()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # noqa: BLE001 - whatever a broker or a backend raises
            self.was_whole = False
            self.failures.note(type(self).__name__, "A scrape is incomplete")

    def _add_brokers(
        self, out: Catalogue, labels: Labels, watched: list[Hooks]
    ) -> None:
        worker = self.get_worker()
        has_timers = worker is None or worker.has_timers
        for broker in self.get_brokers():
            add = functools.partial(
                add_broker,
                out,
                broker,
                labels,
                undeclared=self.undeclared,
                has_timers=has_timers,
            )
            self._guard(add)
            self._guard(functools.partial(_watch, broker, watched))

    def _add_process(self, out: Catalogue, watched: list[Hooks]) -> None:
        out.processes.add_metric([], 1)
        out.processes_killed.add_metric([], self.killed)
        out.start_time.add_metric([], self._started)
        out.build_info.add_metric([self._version], 1)
        worker = self.get_worker()
        out.threads.add_metric([], worker.alive if worker else 0)
        out.threads_busy.add_metric([], worker.busy if worker else 0)
        out.busy_ratio.add_metric([], worker.busy_ratio if worker else 0)
        out.loop_lag.add_metric([], worker.loop_lag if worker else 0)
        missing = worker.missing_threads() if worker else Counter()
        for thread in THREADS:
            out.threads_missing.add_metric([thread], missing[thread])
        if worker:
            watched.append(worker.hooks)

    def _add_telemetry_errors(self, out: Catalogue, watched: Sequence[Hooks]) -> None:
        errors = Counter(self.failures.counts)
        errors[_HOUSEKEEPING] += sum(
            housekeeping.errors
            for housekeeping in {hooks.housekeeping for hooks in watched}
            if housekeeping is not None
        )
        for hooks in {id(hooks): hooks for hooks in watched}.values():
            errors.update(hooks.errors)
        for kind, count in errors.items():
            out.telemetry_errors.add_metric([kind], count)


def _watch(broker: Broker, watched: list[Hooks]) -> None:
    watched.append(broker.hooks)


def _counted(stats: BrokerStats) -> int:
    found = 0
    for queue in stats.queues.values():
        found += queue.published + queue.unconsumed + queue.rolled_back
        found += sum(queue.refused.values())
    for consumer in stats.consumers.values():
        found += sum(consumer.processed.values()) + sum(consumer.dropped.values())
    return found


def _version() -> str:
    try:
        return metadata.version("django-gomq")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
