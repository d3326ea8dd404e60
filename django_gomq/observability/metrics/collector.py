"""Collects what the bus counted when Prometheus scrapes; it counts no message."""

from __future__ import annotations

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.process import current
from django_gomq.bus.worker import Worker

from .families import Families
from .readings import add_broker

logger = logging.getLogger("gomq.metrics")


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
        self._version = _version()
        self._process = current()
        self._started = time.time()
        self._failures = 0

    def describe(self) -> list[Metric]:
        """Return every metric without values, so that registering is no scrape."""
        return Families().all()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with the values of this moment."""
        out = Families()
        watched: list[Hooks] = []
        self._guard(lambda: self._add_brokers(out, watched))
        self._guard(lambda: self._add_process(out, watched))
        self._guard(lambda: self._add_telemetry_errors(out, watched))
        yield from out.all()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            self._failures += 1
            if self._failures == 1:
                logger.exception(
                    "A scrape is incomplete; further errors are only counted"
                )

    def _add_brokers(self, out: Families, watched: list[Hooks]) -> None:
        for broker in self.get_brokers():
            self._guard(functools.partial(add_broker, out, broker))
            self._guard(functools.partial(_watch, broker, watched))

    def _add_process(self, out: Families, watched: list[Hooks]) -> None:
        if current() is not self._process:  # made before a fork
            self._process = current()
            self._started = time.time()
        out.start_time.add_metric([], self._started)
        out.build_info.add_metric([self._version], 1)
        worker = self.get_worker()
        out.threads.add_metric([], worker.alive if worker else 0)
        out.threads_busy.add_metric([], worker.busy if worker else 0)
        if worker:
            watched.append(worker.hooks)

    def _add_telemetry_errors(self, out: Families, watched: Sequence[Hooks]) -> None:
        errors = Counter({type(self).__name__: self._failures})
        for hooks in {id(one): one for one in watched}.values():
            errors.update(hooks.errors)
        for kind, count in errors.items():
            out.telemetry_errors.add_metric([kind], count)


def _watch(broker: Broker, watched: list[Hooks]) -> None:
    watched.append(broker.hooks)


def _version() -> str:
    try:
        return metadata.version("django-gomq")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
