"""The metrics page and the probes, for WSGI and ASGI; no probe ever blocks."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final
from weakref import WeakSet

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_gomq.bus.process.fork import Process, current
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.process.deployment import read_command, read_config
from django_gomq.process.role import shows_all_processes
from django_gomq.site import Site, brokers

logger = logging.getLogger("gomq.metrics")

_told: Final[WeakSet[Process]] = WeakSet()
"""Processes that have said that there are others."""


@login_not_required
@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return every metric; in OpenMetrics, with exemplars, if asked for.

    They are those of this process, or, with PROMETHEUS_MULTIPROC_DIR and without
    exemplars, of all that share the directory. With ``?buckets=fine`` they are ours
    alone, histograms by all the buckets that are counted by. Made once a second; 503
    where some of it cannot be had.
    Who may read it is for ``GOMQ["METRICS"]["ACCESS"]`` alone to say.
    """
    site = brokers.site
    if site is not None:
        if not _may_read(request, site):
            return _refuse(site)
        _tell_of_other_workers(site)
    pages = import_string("django_gomq.observability.metrics.all_processes")
    is_fine = request.GET.get("buckets") == "fine"
    answer = pages.answer(request.headers.get("Accept", ""), fine=is_fine)
    return HttpResponse(
        answer.body, status=answer.status, content_type=answer.content_type
    )


@login_not_required
@require_safe
@never_cache
def index(request: HttpRequest) -> HttpResponse:
    """Return links to the other pages, to those who may read the metrics."""
    site = brokers.site
    if site is not None and not _may_read(request, site):
        return _refuse(site)
    return HttpResponse(_INDEX)


# The links are relative: the site chooses where these pages are.
_INDEX: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>django-gomq</title>
</head>
<body>
<h1>django-gomq</h1>
<ul>
<li><a href="metrics">metrics</a>: all numbers, for Prometheus</li>
<li><a href="livez">livez</a>: whether the threads of this process run</li>
<li><a href="readyz">readyz</a>: whether this process takes events</li>
<li><a href="live/">live</a>: what the bus does now, for staff</li>
</ul>
<p><code>manage.py gomq stats</code> shows the numbers as tables.</p>
</body>
</html>
"""


def _refuse(site: Site) -> HttpResponse:
    refusal = HttpResponse("Not allowed.\n", status=403, content_type="text/plain")
    if site.config.metrics.access == "token":
        refusal.status_code = 401
        refusal["WWW-Authenticate"] = "Bearer"
    return refusal


def _may_read(request: HttpRequest, site: Site) -> bool:
    config = site.config.metrics
    if config.access == "staff":
        user = getattr(request, "user", None)
        is_staff = getattr(user, "is_staff", False)  # not every model of users has it
        return bool(user is not None and user.is_active and is_staff)
    return config.admits(request.headers.get("Authorization", ""))


def _tell_of_other_workers(site: Site) -> None:
    """Warn, once in each process, that the page shows one of several workers."""
    process = current()
    if process in _told:
        return
    _told.add(process)
    server = read_command(sys.argv, os.environ, read_config(Path.cwd()))
    if (server.workers or 1) > 1 and not shows_all_processes(site.config):
        write_log(
            logger,
            logging.WARNING,
            "The metrics page shows one of %d worker processes at a time, this time "
            "%d: set PROMETHEUS_MULTIPROC_DIR, or GOMQ['METRICS']['PORT_RANGE']",
            server.workers,
            process.pid,
        )


@login_not_required
@require_safe
@never_cache
def livez(request: HttpRequest) -> JsonResponse:
    """Return 200 while the threads that should run do run; depth plays no part."""
    site = brokers.site
    dead = [] if site is None else _dead_parts(site)
    return JsonResponse({"alive": not dead, "dead": dead}, status=503 if dead else 200)


def _dead_parts(site: Site) -> list[str]:
    running = [broker for broker in site.brokers.values() if broker.is_started]
    dead = [
        f"reader of {broker.alias}"
        for broker in running
        if not broker.stats().reader_up
    ]
    worker = site.worker
    if running and worker is not None:
        dead += worker.dead_parts()
    return dead


@login_not_required
@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Return 200 as long as no broker of this process drains or has stopped."""
    site = brokers.site
    closed = (
        []
        if site is None
        else [broker.alias for broker in site.brokers.values() if broker.is_closed]
    )
    return JsonResponse(
        {"ready": not closed, "closed": closed}, status=503 if closed else 200
    )
