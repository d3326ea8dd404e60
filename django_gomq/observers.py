"""The observers of a site: its hooks, and who reads its metrics; loaded by path."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from django.core.signals import request_started
from django.utils.module_loading import import_string

from django_gomq.bus.broker import Broker
from django_gomq.bus.hooks import Hook
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.worker.worker import Worker
from django_gomq.conf import Config, MetricsConfig

logger = logging.getLogger("gomq.hooks")

METRICS: Final = "django_gomq.observability.metrics"
TOOLBAR: Final = "django_gomq.toolbar"
_NO_HOOK: Final = "GOMQ['HOOKS']: %s could not be made; the bus goes on without it"


def make_hooks(config: Config) -> Sequence[Hook]:
    """Choose the observers, once in each process, when its first broker lives."""
    load = import_string
    hooks: list[Hook] = [load("django_gomq.observability.logs.LogHook")()]
    if load("django_gomq.observability.logs.ContextFilter").in_use:
        hooks.append(load("django_gomq.observability.logs.ContextHook")())
    if _is_traced(config):
        make = load("django_gomq.observability.tracing.TracingHook")
        hooks.append(make(consumer=config.tracing.consumer))
    if TOOLBAR in sys.modules:  # the site names its panel
        hooks.append(load(f"{TOOLBAR}.OutcomeHook")())
    return hooks + [hook for path in config.hooks for hook in _make_hook(path)]


def _is_traced(config: Config) -> bool:
    enabled = config.tracing.enabled
    if enabled is None:
        is_configured = "django_gomq.observability.tracing.is_sdk_configured"
        return bool(import_string(is_configured)())
    return enabled


def import_observers(config: Config) -> None:
    """Load what the first emit makes: it may come when imports cannot.

    In a child that was forked while another thread imported, or without a free file
    descriptor.
    """
    paths = ["django_gomq.observability.logs.LogHook", *config.hooks]
    if config.tracing.enabled is not False:
        paths.append("django_gomq.observability.tracing.TracingHook")
    for path in paths:
        with suppress(Exception):  # told where it is made
            import_string(path)


def _make_hook(path: str) -> Sequence[Hook]:
    """Make one of the site's own hooks, or say why not: it is no reason to refuse."""
    try:
        hook = import_string(path)()
        if isinstance(hook, Hook):
            return [hook]
        problem: Exception = TypeError(f"it made {hook!r:.200}, which is no Hook")
    except Exception as error:  # noqa: BLE001 - a hook's bug
        problem = error
    fields = {"gomq_hook": path}
    write_log(logger, logging.ERROR, _NO_HOOK, path, fields=fields, error=problem)
    return []


def show_metrics(
    config: Config,
    get_brokers: Callable[[], Iterable[Broker]],
    get_worker: Callable[[], Worker | None],
    may_serve: Callable[[], bool],
) -> None:
    """Have the metrics of this process read, or no longer, as is set.

    ``may_serve`` says whether the process may take a port of PORT_RANGE.
    """
    if config.metrics.enabled:
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        install = import_string(f"{METRICS}.install")
        collector = install(
            get_brokers,
            get_worker,
            directory=directory,
            undeclared=config.metrics.undeclared_events,
        )
    elif METRICS in sys.modules:  # shown so far: the settings were changed
        import_string(f"{METRICS}.uninstall")()
    if config.metrics.enabled and config.metrics.port_range:
        _serve_metrics(config.metrics, collector, may_serve)
    elif METRICS in sys.modules:
        import_string(f"{METRICS}.stop_serving")()
        request_started.disconnect(dispatch_uid=METRICS)


def _serve_metrics(
    metrics: MetricsConfig, collector: object, may_serve: Callable[[], bool]
) -> None:
    import_string(f"{METRICS}.serve_on")(
        collector,
        metrics.port_range,
        address=metrics.port_address,
        admits=metrics.admits,
        may_serve=may_serve,
    )
    ensure_served = import_string(f"{METRICS}.ensure_served")
    request_started.connect(ensure_served, dispatch_uid=METRICS)
