"""What is shown of the brokers, and where: set up once; it renders nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric

from django_gomq.bus.broker import Broker
from django_gomq.bus.worker.worker import Worker
from django_gomq.observability.metrics.multiprocess.collector import SharedMetrics

from .collector import BusCollector, IncompleteError

_installed: WeakKeyDictionary[CollectorRegistry, BusCollector] = WeakKeyDictionary()
_sharing: WeakKeyDictionary[CollectorRegistry, SharedMetrics] = WeakKeyDictionary()


def install(
    get_brokers: Callable[[], Iterable[Broker]],
    get_worker: Callable[[], Worker | None] = lambda: None,
    *,
    registry: CollectorRegistry = REGISTRY,
    directory: str | None = None,
    undeclared: int = 0,
) -> BusCollector:
    """Show these brokers in the registry from now on, in place of earlier ones.

    With a directory they are shared with the other processes that use it, and shown by
    ``collect`` alone: the registry would show one process beside the sum. So many
    ``undeclared`` event types are labels of their own. Touches no broker and no file.
    To be called while a program starts, and again as often as need be; not from two
    threads at once. Raises ValueError if somebody else's metrics have our names.
    """
    collector = _installed.get(registry) or BusCollector(get_brokers, get_worker)
    uninstall(registry)
    collector.show(get_brokers, get_worker, undeclared)
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


def generation_of(registry: CollectorRegistry) -> int:
    """Return a number that changes whenever other brokers are shown."""
    own = _installed.get(registry)
    return 0 if own is None else own.generation


def collect(registry: CollectorRegistry) -> Iterable[Metric]:
    """Return what the page shows: all processes where they share, else this one.

    Raises IncompleteError where some of it cannot be had, as do those below.
    """
    sharing = _sharing.get(registry)
    if sharing is not None:
        return sharing.collect()
    return _whole(registry, registry.collect())


def collect_this_process(registry: CollectorRegistry) -> Iterable[Metric]:
    """Return what is of this process alone, with all that is in the registry."""
    sharing = _sharing.get(registry)
    own = () if sharing is None else sharing.own.collect()
    return _whole(registry, [*own, *registry.collect()])


def collect_fine(registry: CollectorRegistry) -> Iterable[Metric]:
    """Return our metrics alone, with all the buckets that are counted by."""
    sharing = _sharing.get(registry)
    if sharing is not None:
        return sharing.collect_fine()
    return collect_fine_this_process(registry)


def collect_fine_this_process(registry: CollectorRegistry) -> Iterable[Metric]:
    """Return those of this process."""
    own = _installed.get(registry)
    return () if own is None else _whole(registry, own.collect_fine())


def _whole(
    registry: CollectorRegistry, collected: Iterable[Metric]
) -> Iterable[Metric]:
    found = list(collected)
    own = _installed.get(registry)
    if own is not None and not own.was_whole:
        raise IncompleteError("Not every broker of this process tells its numbers.")
    return found


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
