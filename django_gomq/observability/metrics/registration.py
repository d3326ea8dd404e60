"""What is shown of the brokers, and where: set up once; it renders nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from django_gomq.bus.broker import Broker
from django_gomq.bus.worker.worker import Worker
from django_gomq.observability.metrics.multiprocess.collector import SharedMetrics

from .collector import BusCollector

_installed: WeakKeyDictionary[CollectorRegistry, BusCollector] = WeakKeyDictionary()
_sharing: WeakKeyDictionary[CollectorRegistry, SharedMetrics] = WeakKeyDictionary()


def install(
    get_brokers: Callable[[], Iterable[Broker]],
    get_worker: Callable[[], Worker | None] = lambda: None,
    *,
    registry: CollectorRegistry = REGISTRY,
    directory: str | None = None,
) -> BusCollector:
    """Show these brokers in the registry from now on, in place of earlier ones.

    With a directory they are shared with the other processes that use it, and shown by
    ``collector_of`` alone: the registry would show one process beside the sum. Touches
    no broker and no file. To be called while a program starts, and again as often as
    need be; not from two threads at once. Raises ValueError if somebody else's metrics
    have our names.
    """
    collector = _installed.get(registry) or BusCollector(get_brokers, get_worker)
    uninstall(registry)
    collector.get_brokers, collector.get_worker = get_brokers, get_worker
    if directory:
        _sharing[registry] = SharedMetrics(directory, collector)
    else:
        registry.register(collector)
    _installed[registry] = collector
    return collector


def uninstall(registry: CollectorRegistry = REGISTRY) -> None:
    """Take the collector out of the registry, or of the directory, if it is there."""
    collector = _installed.pop(registry, None)
    sharing = _sharing.pop(registry, None)
    if sharing is not None:
        sharing.leave()
    elif collector is not None:
        try:
            registry.unregister(collector)
        except KeyError:
            pass  # somebody did so before


def collector_of(registry: CollectorRegistry) -> Collector:
    """Return what the page shows: all processes where they share, else this one."""
    return _sharing.get(registry) or registry


def collector_of_this_process(registry: CollectorRegistry) -> Collector:
    """Return what shows this process alone, with all that is in the registry."""
    sharing = _sharing.get(registry)
    return registry if sharing is None else _Both(sharing.own, registry)


class _Both(Collector):
    """Two collectors as one."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


def flush(registry: CollectorRegistry = REGISTRY) -> None:
    """Write what this process counted, where processes share; else do nothing."""
    sharing = _sharing.get(registry)
    if sharing is not None:
        sharing.flush()


def end(registry: CollectorRegistry = REGISTRY) -> None:
    """Write the last numbers of this process, where processes share. Idempotent."""
    sharing = _sharing.get(registry)
    if sharing is not None:
        sharing.end()
