"""Registers the collector with the client library, once; it renders nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry

from django_gomq.bus.broker import Broker
from django_gomq.bus.worker import Worker

from .collector import BusCollector

_installed: WeakKeyDictionary[CollectorRegistry, BusCollector] = WeakKeyDictionary()


def install(
    get_brokers: Callable[[], Iterable[Broker]],
    get_worker: Callable[[], Worker | None] = lambda: None,
    *,
    registry: CollectorRegistry = REGISTRY,
) -> BusCollector:
    """Show these brokers in the registry from now on, in place of earlier ones.

    Touches no broker. To be called while a program starts, and again as often as
    need be; not from two threads at once. Raises ValueError if somebody else's
    metrics have our names.
    """
    collector = _installed.get(registry) or BusCollector(get_brokers, get_worker)
    uninstall(registry)
    collector.get_brokers, collector.get_worker = get_brokers, get_worker
    registry.register(collector)
    _installed[registry] = collector
    return collector


def uninstall(registry: CollectorRegistry = REGISTRY) -> None:
    """Take the collector out of the registry, if it is there."""
    collector = _installed.pop(registry, None)
    if collector is None:
        return
    try:
        registry.unregister(collector)
    except KeyError:
        pass  # somebody did so before
