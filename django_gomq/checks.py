"""System checks of settings, registrations and the deployment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import (
    CheckMessage,
    Error,
    Tags,
    Warning,  # noqa: A004
    register,
)
from django.db import connections
from django.utils.module_loading import import_string

from django_gomq import site
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import event_classes
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.registry import registry
from django_gomq.conf import check
from django_gomq.database import pool_size
from django_gomq.deployment import Deployment, read_config, read_gunicorn
from django_gomq.process_role import shows_all_processes
from django_gomq.site import brokers


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
    try:
        registry.consumers(overrides.get("CONSUMERS"))
    except ConfigurationError as error:
        yield Error(
            str(error), hint="Correct GOMQ['CONSUMERS'] or the code.", id="gomq.E004"
        )


@register("gomq")
def check_event_classes(**options: Any) -> list[CheckMessage]:
    """Report two Event classes of one type: consumers would decode by either."""
    found: list[CheckMessage] = []
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
        for skip in site.skipped
    ]


@register("gomq")
def check_backpressure(**options: Any) -> list[CheckMessage]:
    """Warn where one consumer's backpressure holds others back."""
    consumers = [consumer for consumer in _consumers() if consumer.enabled]
    return [
        Warning(
            f"Consumer {consumer.name!r} has overflow='backpressure': when slow, it "
            f"holds back {', '.join(repr(other.name) for other in others)} too.",
            hint="Give it an event type of its own, or another overflow.",
            id="gomq.W002",
            obj=consumer.name,
        )
        for consumer in consumers
        if consumer.overflow == "backpressure"
        and (others := _neighbours(consumer, consumers))
    ]


def _consumers() -> Sequence[Consumer]:
    return brokers.site.consumers if brokers.site is not None else []


def _neighbours(one: Consumer, consumers: Sequence[Consumer]) -> list[Consumer]:
    mine = [Pattern(text) for text in one.types]
    return [
        other
        for other in consumers
        if other is not one
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
    if site is None or workers == 1 or shows_all_processes(site.config):
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
    if site is None or grace is None or site.drain_timeout < grace:
        return []
    return [
        Warning(
            f"The bus may drain for {site.drain_timeout:g} s (GOMQ['DRAIN_TIMEOUT']), "
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
