"""From settings to a site that is ready to emit, and its end; it serves no request."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from django.conf import settings
from django.core.signals import request_started
from django.utils.module_loading import import_string

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.registry import registry
from django_gomq.bus.stats import Remainder
from django_gomq.bus.worker import Worker
from django_gomq.conf import Config, load
from django_gomq.discovery import Skipped, discover, label_of
from django_gomq.rules import RUNS
from django_gomq.running import runs_here
from django_gomq.shutdown import Ladder
from django_gomq.testing import modes
from django_gomq.wiring import Site, brokers

_METRICS: Final = "django_gomq.observability.metrics"

skipped: list[Skipped] = []
"""Consumer modules that were not used, for the system check."""


def set_up() -> None:
    """Read GOMQ, import consumers, make brokers. Raises ConfigurationError."""
    config = load(getattr(settings, "GOMQ", None))
    check_environment(os.environ)
    modes.after_live = renew
    registry.label_of = label_of
    skipped[:] = discover(config)
    brokers.set_up(Site(config, registry))
    _show_metrics(config)


def _show_metrics(config: Config) -> None:
    if config.metrics.enabled:
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        install = import_string(f"{_METRICS}.install")
        collector = install(brokers.values, get_worker, directory=directory)
    elif _METRICS in sys.modules:  # shown so far: the settings were changed
        import_string(f"{_METRICS}.uninstall")()
    if config.metrics.enabled and config.metrics.port_range:
        _serve_metrics(config, collector)
    elif _METRICS in sys.modules:
        import_string(f"{_METRICS}.stop_serving")()
        request_started.disconnect(dispatch_uid=_METRICS)


def _serve_metrics(config: Config, collector: object) -> None:
    def may_serve() -> bool:
        runs = {one.run for one in config.brokers.values()}
        return modes.is_live() and (_is_running() or any(map(runs_here, runs)))

    metrics = config.metrics
    import_string(f"{_METRICS}.serve_on")(
        collector,
        metrics.port_range,
        address=metrics.port_address,
        admits=metrics.admits,
        may_serve=may_serve,
    )
    ensure_served = import_string(f"{_METRICS}.ensure_served")
    request_started.connect(ensure_served, dispatch_uid=_METRICS)


def get_worker() -> Worker | None:
    """Return the worker of this process, if one was needed so far."""
    return brokers.site.worker if brokers.site is not None else None


def check_environment(environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError if ``GOMQ_RUN`` is set to what it cannot be."""
    wanted = environ.get("GOMQ_RUN") or "auto"
    if wanted not in RUNS:
        raise ConfigurationError(
            f"The environment has GOMQ_RUN={wanted!r}; it can be {' or '.join(RUNS)}."
        )


def renew() -> None:
    """Take changed settings into account, as ``override_settings`` makes them."""
    close()
    set_up()


def close() -> Sequence[Remainder]:
    """Drain and stop what runs in this process; at its end, or before a new setup."""
    site = brokers.site
    if site is None:
        return ()
    stopped = site.close()
    if site.config.metrics.enabled:
        import_string(f"{_METRICS}.end")()
    return stopped


def _is_running() -> bool:
    return any(one.is_started for one in brokers.values())


ladder: Final = Ladder(close, _is_running)
"""What drains when the process ends."""


def install_ladder() -> None:
    """Have this process drain at its end, whichever way it ends; once, in ready()."""
    site = brokers.site
    ladder.install(signals=site is not None and site.may_run)
