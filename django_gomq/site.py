"""The composition root: settings and registrations become brokers."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final
from weakref import WeakKeyDictionary

from django.conf import settings
from django.utils.module_loading import import_string

from django_gomq.bus.backend import Capabilities
from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.data.codec import JsonCodec
from django_gomq.bus.declarations.fields import check_fields
from django_gomq.bus.durations import timeout_of
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import declared_types, definitions, event_classes
from django_gomq.bus.hooks import Hook
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import Process, current, may_start
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.process.timers import Deadline
from django_gomq.bus.registry import Registry, registry
from django_gomq.bus.stats import Remainder
from django_gomq.bus.worker.worker import Worker
from django_gomq.capturing import is_live
from django_gomq.conf import RUNS, BrokerConfig, Config, Run, load
from django_gomq.database import DjangoEnvironment, spill_database
from django_gomq.discovery import discover, label_of
from django_gomq.emitters import Emitters, Routes, adapt
from django_gomq.loading.backends import maker_of, try_options
from django_gomq.observers import (
    METRICS,
    import_observers,
    make_hooks,
    show_metrics,
)
from django_gomq.process.role import (
    drain_timeout,
    may_wait,
    runs_here,
    signal_timeout,
)
from django_gomq.process.shutdown import ShutdownCoordinator, Tell
from django_gomq.transactions import check_atomic

REPORTING: Final = "django_gomq.operations.reporter.Reporting"

logger = logging.getLogger("gomq.hooks")
registrations = logging.getLogger("gomq.registry")


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
        for consumer in self.consumers:
            is_set = "atomic" in config.consumers.get(consumer.name, ())
            check_atomic(consumer, "GOMQ['CONSUMERS']: " if is_set else "")
        self.capabilities: dict[str, Capabilities] = {}
        self._databases: dict[str, str] = {}
        self.outboxes: dict[str, str] = {}
        """The alias of the database that events of a broker are forwarded from, by that
        of the broker."""
        make_keeping = import_string("django_gomq.dead_letters.store.make_keeping")
        self._keeping = make_keeping(config, self._databases, _source(config))
        self._reporting = import_string(REPORTING)(self)
        self._environment = DjangoEnvironment()
        self._workers: WeakKeyDictionary[Process, Worker] = WeakKeyDictionary()
        self._ended_in: Process | None = None
        self._hooks: WeakKeyDictionary[Process, Sequence[Hook]] = WeakKeyDictionary()
        self.brokers = {
            alias: self._make_broker(alias, entry)
            for alias, entry in config.brokers.items()
        }
        self.emitters = Emitters(
            self.route, self.brokers, self.codec, config.max_body_bytes
        )

    def add(self, consumer: Consumer) -> None:
        """Run a consumer that was registered after the site was made.

        Raises ConfigurationError if a backend cannot run it, or its name is taken.
        """
        check_atomic(consumer)
        shares = {
            alias: share
            for alias in self.brokers
            if (share := self._routes.share_of(consumer, alias)) is not None
        }
        for alias, share in shares.items():
            self.capabilities[alias].check(share)
            self._check_spilling(share, alias)
        for alias, share in shares.items():
            self.brokers[alias].add(share)
        self.consumers.append(consumer)

    def _make_broker(self, alias: str, entry: BrokerConfig) -> Broker:
        make_backend = maker_of(alias, entry)
        tried = try_options(alias, make_backend)
        capabilities = self.capabilities[alias] = tried.capabilities
        if tried.database is not None and tried.relays:
            self.outboxes[alias] = tried.database
        elif tried.database is not None:
            other = self._databases.setdefault(tried.database, alias)
            _refuse_shared(tried.database, other, alias)
        if entry.run == "worker" and not capabilities.durable:
            raise ConfigurationError(
                f"GOMQ['BROKERS'][{alias!r}]: RUN 'worker' needs a backend with a "
                "server; memory consumers run where events are emitted.",
                broker=alias,
            )
        consumers = self.consumers_of(alias)
        for consumer in consumers:
            capabilities.check(consumer)
            self._check_spilling(consumer, alias)
        broker = Broker(
            make_backend,
            alias,
            consumers=consumers,
            hooks=self._get_hooks,
            get_worker=self._get_worker,
            declared=functools.partial(self._declared, alias),
            may_start=functools.partial(
                self._may_start, entry.run, has_server=capabilities.durable
            ),
            may_wait=may_wait,
            drain_timeout=self.drain_timeout,
            max_body_bytes=self.config.max_body_bytes,
            source=_source(self.config),
            keeping=self._keeping,
            wait_buckets=self.config.metrics.wait_buckets,
            handler_buckets=self.config.metrics.handler_buckets,
        )
        broker.on_start = self._attend
        return broker

    def _check_spilling(self, consumer: Consumer, alias: str) -> None:
        spills = consumer.enabled and self.capabilities[alias].spills(consumer)
        if not spills or spill_database() is not None:
            return
        if self._runs_here(self.config.brokers[alias].run):  # else it is for `check`
            raise NoSpillDatabaseError(
                f"Consumer {consumer.name!r} has overflow='spill', and there is no "
                "database for what it spills. Have a PostgreSQL, MySQL, MariaDB or "
                "SQLite in DATABASES, or give it another overflow.",
                consumer=consumer.name,
            )

    def _attend(self, broker: Broker) -> None:
        """Do what a broker needs that is used in this process, though it may not start.

        Where processes share their numbers, one that only emits has to write its own.
        """
        self._reporting.attend(broker)
        shares = (
            self.config.metrics.enabled and "PROMETHEUS_MULTIPROC_DIR" in os.environ
        )
        if shares and may_start():
            with suppress(RuntimeError, MemoryError, OSError):  # the next one tries
                self._get_worker().timers.start()

    def consumers_of(self, alias: str) -> list[Consumer]:
        """Return the consumers in the code with the types that this broker has."""
        shares = [self._routes.share_of(consumer, alias) for consumer in self.consumers]
        return [share for share in shares if share is not None]

    def _declared(self, alias: str) -> list[str]:
        names = declared_types()
        names.update(self.config.events)
        for consumer in self.consumers:
            names.update(text for text in consumer.types if Pattern(text).is_exact)
        return sorted(name for name in names if self.route(name) == alias)

    def _get_hooks(self) -> Sequence[Hook]:
        process = current()
        with process.lock:
            if process not in self._hooks:
                self._hooks[process] = make_hooks(self.config)
            return self._hooks[process]

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
    def databases(self) -> Mapping[str, str]:
        """The alias of the broker that keeps its tables in a database, by that."""
        return self._databases

    @property
    def worker(self) -> Worker | None:
        """The worker of this process, if a broker has needed one."""
        return self._workers.get(current())

    def _may_start(self, run: Run, *, has_server: bool) -> bool:
        # What came after the end would start threads that nobody stops.
        is_open = self._ended_in is not current()
        return is_open and self._runs_here(run, has_server=has_server)

    def _runs_here(self, run: Run, *, has_server: bool = False) -> bool:
        return runs_here(run, self.config.idle_commands, has_server=has_server)

    def starts_by_itself(self, broker: Broker) -> bool:
        """Whether a broker with a server runs its consumers here without a command."""
        run = self.config.brokers[broker.alias].run
        is_durable = broker.capabilities.durable
        return is_durable and self._may_start(run, has_server=True)

    def goes_on(self, broker: Broker) -> bool:
        """Whether its consumers may have spilled what is to be handled here."""
        run = self.config.brokers[broker.alias].run
        if not broker.spills or self.capabilities[broker.alias].settles:
            return False
        return is_live() and self._may_start(run, has_server=False)

    @property
    def may_run(self) -> bool:
        """Whether an emit may start consumers in this process."""
        return any(self._runs_here(entry.run) for entry in self.config.brokers.values())

    @property
    def drain_timeout(self) -> float:
        """Seconds that a stop may wait for what was accepted, as things are now."""
        return drain_timeout(self.config.drain_timeout)

    def finish(self) -> bool:
        """Wait until what was accepted is finished, and go on; return whether it is.

        Blocks up to ``DRAIN_TIMEOUT``, of a command without limit.
        """
        end = Clock.monotonic() + self.drain_timeout
        while self._has_work(left := max(0.0, end - Clock.monotonic())) and left:
            for broker in self.brokers.values():  # each may emit into the others
                broker.finish(left)
        return not self._has_work(math.inf)

    def _has_work(self, seconds: float) -> bool:
        # Twice: a handler of one may emit into another that was asked before.
        brokers = [*self.brokers.values()] * 2
        return any(broker.has_work(seconds) for broker in brokers)

    def close(
        self, timeout: float | timedelta | None = None, tell: Tell | None = None
    ) -> list[Remainder]:
        """Drain and stop what runs in this process, where nothing starts again.

        Blocks up to ``timeout`` seconds (``DRAIN_TIMEOUT`` by default) for all brokers
        together, and about one more. Returns what was left by those that it stopped,
        which ``tell`` is told while log lines have a thread. Idempotent; a second
        caller waits for the first, and may give it less time.
        """
        self._ended_in = current()
        limit = timeout_of(timeout)
        deadline = Deadline.after(self.drain_timeout if limit is None else limit)
        stopped: list[Remainder] = []
        for broker in self.brokers.values():
            was_started = broker.is_started
            # One that only asked its server something has connections to close.
            is_linked = broker.is_used and broker.capabilities.durable
            if was_started or broker.is_closed or is_linked:
                remainder = broker.close(deadline.left())
                stopped += [remainder] if was_started else []
        self._reporting.end()
        worker = self.worker
        if worker is not None:
            if stopped and tell is not None:
                tell(stopped, worker.housekeeping.hand_over)
            worker.stop(timeout=0.5)
        return stopped


def _refuse_shared(database: str, other: str, alias: str) -> None:
    if other != alias:
        raise ConfigurationError(
            f"GOMQ['BROKERS']: {other!r} and {alias!r} keep their tables in one "
            f"database, {database!r}, where each would dispatch the other's events: "
            "give one of them OPTIONS['using'] of another, or route to one broker.",
            broker=alias,
        )


class NoSpillDatabaseError(ConfigurationError):
    """A consumer spills, and no database can take what it does."""


def _source(config: Config) -> str:
    """Return who this site is on the wire: where ``SOURCE`` does not say, its name."""
    project = str(getattr(settings, "ROOT_URLCONF", "")).partition(".")[0]
    return config.source or project or "django"


class Brokers(Mapping[str, Broker]):
    """The brokers of this site by alias; ``brokers["default"]``. Thread-safe."""

    def __init__(self) -> None:
        self.site: Site | None = None
        """What ``ready()`` set up; None where django_gomq is not installed."""
        self.failure: ConfigurationError | None = None
        """Why there is no site, in a command that reports what is wrong."""

    def set_up(
        self, site: Site | None, failure: ConfigurationError | None = None
    ) -> None:
        """Use this configuration from now on."""
        self.site, self.failure = site, failure

    def __getitem__(self, alias: str) -> Broker:
        """Return a broker; raises ConfigurationError for an unknown alias."""
        if self.site is None:
            raise self.failure or ConfigurationError(
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


def set_up() -> None:
    """Read GOMQ, import consumers, make brokers. Raises ConfigurationError."""
    config = load(getattr(settings, "GOMQ", None))
    check_environment(os.environ)
    registry.label_of = label_of
    registry.on_added = None
    discover(config)
    _run_by(config)


def _run_by(config: Config) -> None:
    brokers.set_up(Site(config, registry))
    registry.on_added, definitions.on_defined = _add_late, _forget_plan
    import_observers(config)
    show_metrics(config, brokers.values, get_worker, _may_serve)


def tell_wrong_events() -> None:
    """Log each Event class with a field that cannot be: no emit of it will work."""
    for event_class in event_classes():
        try:
            check_fields(event_class)
        except ConfigurationError as error:
            write_log(registrations, logging.ERROR, "%s", error)


def _forget_plan(event_type: str) -> None:
    """Have a class that was defined late check what is emitted by its name."""
    if brokers.site is not None:
        brokers.site.emitters.known.pop(event_type, None)


def _add_late(consumer: Consumer, was_there: bool) -> None:
    """Run what a view, a shell or an AppConfig registers after ``ready()``."""
    site = brokers.site
    if site is None:
        return
    if was_there:  # a reloaded module: its deliveries under way belong to the old one
        write_log(
            registrations,
            logging.WARNING,
            "Consumer %s was registered again: this process goes on with the handler "
            "that it had until it is started again",
            consumer.name,
            fields={"gomq_consumer": consumer.name},
        )
        return
    site.add(consumer)


def use(config: Config) -> None:
    """Run by this configuration from now on, instead of that of the settings.

    For a command whose options say more. Raises ConfigurationError.
    """
    close()
    registry.on_added = None
    _run_by(config)


def _may_serve() -> bool:
    """Whether this process has numbers that are worth a port."""
    site = brokers.site
    may_run = site is not None and site.may_run
    return is_live() and (_is_running() or may_run)


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


def close(timeout: float | None = None, tell: Tell | None = None) -> None:
    """Drain and stop what runs in this process; at its end, or before a new setup."""
    site = brokers.site
    if site is not None:
        site.close(timeout, tell)
        if site.config.metrics.enabled:
            import_string(f"{METRICS}.end")()


def _is_running() -> bool:
    return any(broker.is_started for broker in brokers.values())


class _Bus:
    """The site of this moment, as the end of the process sees it."""

    may_wait = staticmethod(may_wait)
    close = staticmethod(close)

    def is_due(self) -> bool:
        return _is_running() or any(broker.is_draining for broker in brokers.values())

    def signal_timeout(self) -> float:
        site = brokers.site
        return signal_timeout(site.config.drain_timeout if site is not None else None)

    def logging_hangs(self) -> bool:
        worker = get_worker()
        return worker is not None and worker.housekeeping.is_stuck

    def finish(self) -> bool:
        return brokers.site is None or brokers.site.finish()


coordinator: Final = ShutdownCoordinator(_Bus())
"""What drains when the process ends."""


def install_coordinator() -> None:
    """Have this process drain at its end, whichever way it ends; once, in ready()."""
    site = brokers.site
    coordinator.install(signals=site is not None and site.may_run)
