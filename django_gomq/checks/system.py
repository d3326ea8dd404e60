"""System checks of settings, registrations and the deployment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import (
    CheckMessage,
    Error,
    Tags,
    Warning,  # noqa: A004
    register,
)
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.declarations.fields import check_fields
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import event_classes
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.registry import registry
from django_gomq.capturing import is_test_environment
from django_gomq.conf import Config, check
from django_gomq.database import locks_late, pool_size
from django_gomq.discovery import ConsumersError, has_module, skipped
from django_gomq.process.deployment import Deployment, read_config, read_gunicorn
from django_gomq.process.role import shows_all_processes, signal_timeout
from django_gomq.signals import events_of_models
from django_gomq.site import NoSpillDatabaseError, Site, brokers


@register("gomq")
def check_settings(**options: Any) -> list[CheckMessage]:
    """Report wrong settings and registrations as errors."""
    problems = list(check(getattr(settings, "GOMQ", None)))
    found: list[CheckMessage] = [
        Error(problem.text, hint=problem.hint or None, id=problem.id)
        for problem in problems
    ]
    if not problems:
        found += _check_registrations()
    return found


def _check_registrations() -> Iterator[CheckMessage]:
    overrides = getattr(settings, "GOMQ", None) or {}
    error = brokers.failure
    if error is None:
        try:
            registry.consumers(overrides.get("CONSUMERS"))
        except ConfigurationError as wrong:
            error = wrong
    if isinstance(error, ConsumersError):
        hint = f"Correct {error.filename}; the server does not start before."
        yield Error(str(error), hint=hint, id="gomq.E007")
    elif isinstance(error, NoSpillDatabaseError):
        hint = "The server does not start before."
        yield Error(str(error), hint=hint, obj=error.consumer, id="gomq.E010")
    elif error is not None:
        hint = "Correct GOMQ or the code; the server does not start before."
        yield Error(str(error), hint=hint, id="gomq.E004")


@register("gomq")
def check_event_classes(**options: Any) -> list[CheckMessage]:
    """Report wrong fields, and two Event classes of one type.

    Consumers would decode by either.
    """
    found: list[CheckMessage] = [*_check_fields()]
    places: dict[str, set[str]] = {}
    for cls in event_classes():
        place = f"{cls.__module__}.{cls.__qualname__}"
        places.setdefault(cls.__event_type__, set()).add(place)
    for event_type, names in places.items():
        if len(names) > 1:
            found.append(
                Error(
                    f"Several Event classes have the type {event_type!r}: "
                    f"{', '.join(sorted(names))}.",
                    hint="Keep one of them, or give the other another type.",
                    id="gomq.E005",
                )
            )
    return found


def _check_fields() -> Iterator[CheckMessage]:
    for event_class in event_classes():
        try:
            check_fields(event_class)
        except ConfigurationError as error:
            yield Error(
                str(error),
                hint="Fields are of types that JSON has: numbers, texts, datetimes, "
                "UUIDs, Decimals, enums, lists, dicts, other structs.",
                obj=event_class,
                id="gomq.E008",
            )


@register("gomq")
def check_skipped_modules(**options: Any) -> list[CheckMessage]:
    """Warn of consumer modules that were not used."""
    return [
        Warning(
            f"{skip.module} was skipped: {skip.missing!r}, which it imports, is not "
            "installed.",
            hint="If it holds no consumers of django-gomq (Channels names its files "
            "so too), add its app to GOMQ['AUTODISCOVER_EXCLUDE']; else install it.",
            id="gomq.W001",
        )
        for skip in skipped
    ]


@register("gomq")
def check_discovery(**options: Any) -> list[CheckMessage]:
    """Warn of names of modules and apps that nothing has."""
    if brokers.site is None:
        return []
    config, installed = brokers.site.config, list(apps.get_app_configs())
    modules = [
        name
        for name in config.autodiscover
        if name not in Config().autodiscover
        and not any(has_module(app, name) for app in installed)
    ]
    names = {app.name for app in installed}
    excluded = [name for name in config.autodiscover_exclude if name not in names]
    return [
        *_warn_of("AUTODISCOVER", modules, "module of an app", "'handlers'"),
        *_warn_of("AUTODISCOVER_EXCLUDE", excluded, "installed app", "'shop.chat'"),
    ]


def _warn_of(
    setting: str, names: Sequence[str], what: str, example: str
) -> Iterator[CheckMessage]:
    for name in names:
        yield Warning(
            f"GOMQ[{setting!r}] names {name!r}, and there is no such {what}.",
            hint=f"Name each {what} by its dotted path, such as {example}.",
            id="gomq.W009",
        )


@register("gomq")
def check_backpressure(**options: Any) -> list[CheckMessage]:
    """Warn where one consumer's backpressure holds others back."""
    site = brokers.site
    if site is None:
        return []
    found: dict[str, Sequence[Consumer]] = {}
    for alias in site.brokers:
        if not site.capabilities[alias].settles:  # a server keeps what finds no room
            found |= _held_back([c for c in site.consumers_of(alias) if c.enabled])
    return [
        Warning(
            f"Consumer {name!r} has overflow='backpressure': when slow, it "
            f"holds back {', '.join(repr(other.name) for other in others)} too.",
            hint="Give it an event type of its own, or another overflow.",
            id="gomq.W002",
            obj=name,
        )
        for name, others in found.items()
    ]


def _held_back(consumers: Sequence[Consumer]) -> dict[str, Sequence[Consumer]]:
    """Return whom each holds back that wants to, by its name."""
    return {
        consumer.name: others
        for consumer in consumers
        if consumer.overflow == "backpressure"
        and (others := _neighbours(consumer, consumers))
    }


def _consumers() -> Sequence[Consumer]:
    return brokers.site.consumers if brokers.site is not None else []


def _neighbours(consumer: Consumer, consumers: Sequence[Consumer]) -> list[Consumer]:
    mine = [Pattern(text) for text in consumer.types]
    return [
        other
        for other in consumers
        if other is not consumer
        and any(
            pattern.overlaps(Pattern(text)) for pattern in mine for text in other.types
        )
    ]


@register("gomq")
def check_concurrency(**options: Any) -> list[CheckMessage]:
    """Warn where one consumer may keep all handler threads from the others."""
    threads = brokers.site.config.threads if brokers.site is not None else 0
    consumers = [
        consumer
        for consumer in _consumers()
        if consumer.enabled and not consumer.is_async
    ]
    return [
        Warning(
            f"Consumer {consumer.name!r} may keep {consumer.concurrency} handler "
            f"threads at work, and there are {threads} for all consumers: where its "
            "handler is slow or hangs, the others stand still.",
            hint=f"Raise GOMQ['THREADS'] above {consumer.concurrency}, or lower its "
            "concurrency; a timeout has hung threads replaced.",
            id="gomq.W007",
            obj=consumer.name,
        )
        for consumer in consumers
        if len(consumers) > 1 and consumer.concurrency >= threads
    ]


@register("gomq")
def check_workers(**options: Any) -> list[CheckMessage]:
    """Warn where a scrape would show one of several worker processes."""
    site, workers = brokers.site, _gunicorn().workers or 1
    if site is None or workers == 1 or not site.config.metrics.enabled:
        return []
    if shows_all_processes(site.config):
        return []
    return [
        Warning(
            f"{workers} worker processes are configured, and a scrape of the metrics "
            "page reaches one of them at a time.",
            hint="Set PROMETHEUS_MULTIPROC_DIR to an empty directory, where their "
            "numbers add up, or GOMQ['METRICS']['PORT_RANGE'], one target for each.",
            id="gomq.W004",
        )
    ]


@register("gomq")
def check_drain_timeout(**options: Any) -> list[CheckMessage]:
    """Warn where gunicorn would kill a worker in the midst of its drain."""
    site, grace = brokers.site, _gunicorn().graceful_timeout
    seconds = signal_timeout(site.config.drain_timeout) if site is not None else 0.0
    if grace is None or seconds < grace:
        return []
    return [
        Warning(
            f"The bus may drain for {seconds:g} s (GOMQ['DRAIN_TIMEOUT']), "
            f"and gunicorn kills a worker after {grace:g} s (graceful_timeout): what "
            "is queued then is lost, and nobody counts it.",
            hint="Make DRAIN_TIMEOUT shorter, or graceful_timeout longer: requests "
            "need some of it too.",
            id="gomq.W005",
        )
    ]


def _gunicorn() -> Deployment:
    return read_gunicorn(read_config(Path.cwd()), os.environ)


@register("gomq")
def check_multiproc_directory(**options: Any) -> list[CheckMessage]:
    """Report a directory in which processes cannot share their numbers."""
    path, site = os.environ.get("PROMETHEUS_MULTIPROC_DIR"), brokers.site
    if not path or site is None or not site.config.metrics.enabled:
        return []
    check = import_string("django_gomq.observability.metrics.check_directory")
    problem: str | None = check(path)
    if problem is None:
        return []
    return [
        Error(
            f"PROMETHEUS_MULTIPROC_DIR: {problem}.",
            hint="Make it a directory on a local disk that the server may write to.",
            id="gomq.E006",
        )
    ]


@register(Tags.security, deploy=True)
def check_metrics_access(**options: Any) -> list[CheckMessage]:
    """Warn where the metrics page is open to everybody."""
    site = brokers.site
    if site is None or site.config.metrics.access != "open":
        return []
    return [
        Warning(
            "The metrics page, where its URL is included, is open to everybody.",
            hint="Set GOMQ['METRICS']['ACCESS'] to 'token' or 'staff', or keep the URL "
            "inside your network.",
            id="gomq.W003",
        )
    ]


@register("gomq")
def check_pools(**options: Any) -> list[CheckMessage]:
    """Warn where handler threads would wait for one another's pooled connections."""
    threads = brokers.site.config.threads if brokers.site is not None else 0
    return [
        Warning(
            f"The pool of database {alias!r} has {size} connections, and {threads} "
            "handler threads (GOMQ['THREADS']) share them with requests.",
            hint=f"Raise max_size in DATABASES[{alias!r}]['OPTIONS']['pool'] to "
            f"{threads} and what requests need, or lower THREADS.",
            id="gomq.W006",
        )
        for alias, entry in connections.settings.items()
        if 0 < (size := pool_size(entry)) < threads
    ]


@register("gomq")
def check_sqlite(**options: Any) -> list[CheckMessage]:
    """Warn where handlers write to SQLite beside requests that do not expect it."""
    found: list[CheckMessage] = []
    for alias in connections:
        connection: Any = connections[alias]
        writers = [
            consumer.name
            for consumer in _consumers()
            if _may_write(consumer, connection)
        ]
        if not writers or not locks_late(connection):
            continue
        found.append(
            Warning(
                f"Handlers, such as those of {writers[0]!r}, may write to the SQLite "
                f"database {alias!r} beside requests: a request that reads and then "
                "writes in one transaction fails at once with 'database is locked', "
                "whatever the timeout, where one of them wrote in between.",
                hint=f"Set DATABASES[{alias!r}]['OPTIONS'] to {{'transaction_mode': "
                "'IMMEDIATE', 'timeout': 20}; see docs/databases.md.",
                id="gomq.W008",
            )
        )
    return found


def _may_write(consumer: Consumer, connection: BaseDatabaseWrapper) -> bool:
    """Whether its options, or those of the database, speak of transactions there."""
    if consumer.atomic:
        named = consumer.atomic if isinstance(consumer.atomic, str) else "default"
        return consumer.enabled and named == connection.alias
    if consumer.idempotent and brokers.site is not None:
        return consumer.enabled and connection.alias in brokers.site.databases
    may_meet = consumer.concurrency > 1 or connection.settings_dict["ATOMIC_REQUESTS"]
    return consumer.enabled and connection.alias == "default" and bool(may_meet)


@register("gomq")
def check_databases_of_events(**options: Any) -> list[CheckMessage]:
    """Report models whose events cannot be written in the transaction of their rows."""
    return list(_check_models(brokers.site)) if brokers.site is not None else []


def _check_models(site: Site) -> Iterator[CheckMessage]:
    database_of = {alias: database for database, alias in site.databases.items()}
    database_of.update(site.outboxes)
    for model, source in events_of_models():
        if source.options.get("on_commit") is False or source.options.get("using"):
            continue  # they wait for no commit of the model's database
        alias = source.options.get("broker") or site.route(source.event)
        wanted, written = database_of.get(alias), router.db_for_write(model)
        if wanted not in (None, written):
            yield Error(
                f"{model._meta.label} is written to database {written!r}, and its "
                f"event {source.event!r} goes to broker {alias!r}, which writes to "
                f"{wanted!r}: no transaction has both.",
                hint="Route the event to a broker with OPTIONS = "
                f"{{'using': {written!r}}}, or {{'outbox': {written!r}}}, "
                "(GOMQ['ROUTES']), or to one that publishes after the commit.",
                obj=model,
                id="gomq.E009",
            )


@register(Tags.database)
def check_relays(
    databases: Sequence[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Warn where events wait in an outbox, and no process forwards them."""
    site = brokers.site
    if site is None or is_test_environment():
        return []
    find_unrelayed = import_string("django_gomq.relay.table.unrelayed")
    waiting: list[tuple[str, str, int]] = [
        (alias, using, find_unrelayed(using, alias))
        for alias, using in site.outboxes.items()
        if using in (databases or ())
    ]
    return [
        Warning(
            f"{count} events of broker {alias!r} wait in database {using!r}, and no "
            "process forwards them to its server.",
            hint=f"Start manage.py gomq worker --broker {alias}.",
            id="gomq.W013",
        )
        for alias, using, count in waiting
        if count
    ]
