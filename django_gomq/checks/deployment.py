"""System checks of the deployment: its processes, pools, numbers, and who sees them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.db import connections
from django.utils.module_loading import import_string

from django_gomq.connections import pool_size
from django_gomq.deployment import Deployment, read_config, read_gunicorn
from django_gomq.running import shows_all_processes
from django_gomq.wiring import brokers


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
