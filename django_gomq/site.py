"""The composition root: settings and registrations become brokers."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from django.conf import settings
from django.core.signals import request_started
from django.utils.module_loading import import_string

from django_gomq.bus.backend import Backend
from django_gomq.bus.broker import Broker
from django_gomq.bus.codec import JsonCodec
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import event_classes
from django_gomq.bus.hooks import Hook
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.process.fork import Process, current
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.process.timers import Deadline
from django_gomq.bus.registry import Registry, registry
from django_gomq.bus.stats import Remainder
from django_gomq.bus.worker.worker import Worker
from django_gomq.conf import RUNS, BrokerConfig, Config, Run, load
from django_gomq.database import DjangoEnvironment
from django_gomq.discovery import Skipped, discover, label_of
from django_gomq.emitters import Emitters, Routes, adapt
from django_gomq.process_role import drain_timeout, runs_here
from django_gomq.shutdown import ShutdownCoordinator
from django_gomq.testing import modes

logger = logging.getLogger("gomq.hooks")

_NO_HOOK: Final = "GOMQ['HOOKS']: %s could not be made; the bus goes on without it"


class Site:
    """Everything that one configuration makes: its brokers, worker and codec.

    Making it starts nothing and touches no database. Thread-safe afterwards.
    """

    def __init__(self, config: Config, registry: Registry) -> None:
        self.config = config
        self.codec = JsonCodec(adapt)
        self.consumers = registry.consumers(config.consumers)
        self._routes = Routes(config.routes)
        self.route = self._routes.alias_of
        self._check_databases()
        self._environment = DjangoEnvironment()
        self._workers: WeakKeyDictionary[Process, Worker] = WeakKeyDictionary()
        self._ended_in: Process | None = None
        self.drain_timeout = drain_timeout(config.drain_timeout)
        """Seconds that a stop may wait for what was accepted."""
        self._hooks: WeakKeyDictionary[Process, Sequence[Hook]] = WeakKeyDictionary()
        self.brokers = {
            alias: self._make_broker(alias, entry)
            for alias, entry in config.brokers.items()
        }
        self.emitters = Emitters(
            self.route, self.brokers, self.codec, config.max_body_bytes
        )

    def _check_databases(self) -> None:
        for consumer in self.consumers:
            using = consumer.atomic
            if isinstance(using, str) and using not in settings.DATABASES:
                known = ", ".join(map(repr, settings.DATABASES))
                raise ConfigurationError(
                    f"Consumer {consumer.name!r}: atomic={using!r} names no database; "
                    f"there are {known}.",
                    consumer=consumer.name,
                )

    def _make_broker(self, alias: str, entry: BrokerConfig) -> Broker:
        backend = _import_backend(entry)
        make_backend = functools.partial(backend, **entry.options)
        capabilities = _try_options(alias, make_backend).capabilities
        if entry.run == "worker" and not capabilities.durable:
            raise ConfigurationError(
                f"GOMQ['BROKERS'][{alias!r}]: RUN 'worker' needs a backend with a "
                "server; memory consumers run where events are emitted.",
                broker=alias,
            )
        shares = [self._routes.share_of(consumer, alias) for consumer in self.consumers]
        consumers = [consumer for consumer in shares if consumer is not None]
        for consumer in consumers:
            capabilities.check(consumer)
        return Broker(
            make_backend,
            alias,
            consumers=consumers,
            hooks=self._get_hooks,
            get_worker=self._get_worker,
            declared=self._declared(alias),
            may_start=functools.partial(self._may_start, entry.run),
            drain_timeout=self.drain_timeout,
            max_body_bytes=self.config.max_body_bytes,
            source=self.config.source or _project(),
            kept_dead_letters=self.config.dead_letters.get("KEEP"),
            wait_buckets=self.config.metrics.wait_buckets,
            handler_buckets=self.config.metrics.handler_buckets,
        )

    def _declared(self, alias: str) -> list[str]:
        names = {cls.__event_type__ for cls in event_classes()}
        names.update(self.config.events)
        for consumer in self.consumers:
            names.update(text for text in consumer.types if Pattern(text).is_exact)
        return sorted(name for name in names if self.route(name) == alias)

    def _get_hooks(self) -> Sequence[Hook]:
        process = current()
        with process.lock:
            if process not in self._hooks:
                self._hooks[process] = self._make_hooks()
            return self._hooks[process]

    def _make_hooks(self) -> Sequence[Hook]:
        """Choose the observers, once in each process, when its first broker lives."""
        load = import_string
        hooks: list[Hook] = [load("django_gomq.observability.logs.LogHook")()]
        if load("django_gomq.observability.logs.ContextFilter").in_use:
            hooks.append(load("django_gomq.observability.logs.ContextHook")())
        if self._is_traced():
            make = load("django_gomq.observability.tracing.TracingHook")
            hooks.append(make(consumer=self.config.tracing.consumer))
        return hooks + [hook for path in self.config.hooks for hook in _make_hook(path)]

    def _is_traced(self) -> bool:
        enabled = self.config.tracing.enabled
        if enabled is None:
            is_configured = "django_gomq.observability.tracing.is_sdk_configured"
            return bool(import_string(is_configured)())
        return enabled

    def _get_worker(self) -> Worker:
        process = current()
        with process.lock:
            worker = self._workers.get(process)
            if worker is None:
                worker = Worker(
                    self.config.threads,
                    environment=self._environment,
                    hooks=self._get_hooks(),
                )
                if self.config.metrics.enabled:
                    tick = import_string("django_gomq.observability.metrics.tick")
                    worker.timers.every_second(tick)
                self._workers[process] = worker
            return worker

    @property
    def worker(self) -> Worker | None:
        """The worker of this process, if a broker has needed one."""
        return self._workers.get(current())

    def _may_start(self, run: Run) -> bool:
        # What came after the end would start threads that nobody stops.
        return self._ended_in is not current() and runs_here(run)

    @property
    def may_run(self) -> bool:
        """Whether an emit may start consumers in this process."""
        return any(runs_here(entry.run) for entry in self.config.brokers.values())

    def close(self, timeout: float | None = None) -> list[Remainder]:
        """Drain and stop what runs in this process, where nothing starts again.

        Blocks up to ``timeout`` seconds (``DRAIN_TIMEOUT`` by default) for all brokers
        together, and about one more. Returns what was left by those that it stopped.
        Idempotent; a second caller waits for the first.
        """
        self._ended_in = current()
        deadline = Deadline.after(self.drain_timeout if timeout is None else timeout)
        stopped: list[Remainder] = []
        for broker in self.brokers.values():
            was_started = broker.is_started
            if was_started or broker.is_closed:
                remainder = broker.close(deadline.left())
                stopped += [remainder] if was_started else []
        if self.worker is not None:
            self.worker.stop(timeout=0.5)
        return stopped


def _project() -> str:
    """Return who this site is on the wire, where ``SOURCE`` does not say."""
    return str(getattr(settings, "ROOT_URLCONF", "")).partition(".")[0] or "django"


def _import_backend(entry: BrokerConfig) -> type[Backend]:
    try:
        backend = import_string(entry.backend)
    except ImportError as error:
        raise ConfigurationError(
            f"GOMQ['BROKERS']: BACKEND {entry.backend!r} cannot be imported: {error}"
        ) from error
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise ConfigurationError(
            f"GOMQ['BROKERS']: BACKEND {entry.backend!r} is no Backend class."
        )
    return backend


def _try_options(alias: str, make_backend: functools.partial[Backend]) -> Backend:
    """Make a backend once, so that wrong options are told now and not at an emit."""
    try:
        return make_backend()
    except (TypeError, ConfigurationError) as error:
        raise ConfigurationError(
            f"GOMQ['BROKERS'][{alias!r}]['OPTIONS']: {error}", broker=alias
        ) from error


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


class Brokers(Mapping[str, Broker]):
    """The brokers of this site by alias; ``brokers["default"]``. Thread-safe."""

    def __init__(self) -> None:
        self.site: Site | None = None
        """What ``ready()`` set up; None where django_gomq is not installed."""

    def set_up(self, site: Site | None) -> None:
        """Use this configuration from now on."""
        self.site = site

    def __getitem__(self, alias: str) -> Broker:
        """Return a broker; raises ConfigurationError for an unknown alias."""
        if self.site is None:
            raise ConfigurationError(
                "django_gomq is not set up: add 'django_gomq' to INSTALLED_APPS and "
                "let django.setup() run first."
            )
        try:
            return self.site.brokers[alias]
        except KeyError:
            known = ", ".join(map(repr, self.site.brokers))
            raise ConfigurationError(
                f"There is no broker {alias!r} in GOMQ['BROKERS']; there are {known}.",
                broker=alias,
            ) from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the aliases."""
        return iter(self.site.brokers if self.site else ())

    def __len__(self) -> int:
        """How many brokers there are."""
        return len(self.site.brokers) if self.site else 0


brokers = Brokers()


def get_broker(alias: str = "default") -> Broker:
    """Return the broker of this alias; raises ConfigurationError if there is none."""
    return brokers[alias]


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
        runs = {broker.run for broker in config.brokers.values()}
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
    return any(broker.is_started for broker in brokers.values())


coordinator: Final = ShutdownCoordinator(close, _is_running)
"""What drains when the process ends."""


def install_coordinator() -> None:
    """Have this process drain at its end, whichever way it ends; once, in ready()."""
    site = brokers.site
    coordinator.install(signals=site is not None and site.may_run)
