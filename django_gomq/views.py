"""The metrics page and the probes; each works under WSGI and ASGI and never blocks."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final
from weakref import WeakSet

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_gomq.bus.process.fork import Process, current
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.deployment import read_command, read_config
from django_gomq.process_role import shows_all_processes
from django_gomq.site import Site, brokers

logger = logging.getLogger("gomq.metrics")

_told: Final[WeakSet[Process]] = WeakSet()
"""Processes that have said that there are others."""


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return every metric; in OpenMetrics, with exemplars, if asked for.

    They are those of this process, or, with PROMETHEUS_MULTIPROC_DIR and without
    exemplars, of all that share the directory.
    Who may read it is ``GOMQ["METRICS"]["ACCESS"]``.
    """
    site = brokers.site
    if site is not None and not _may_read(request, site):
        refusal = HttpResponse("Not allowed.\n", status=403, content_type="text/plain")
        if site.config.metrics.access == "token":
            refusal.status_code = 401
            refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    if site is not None:
        _tell_of_other_workers(site)
    render = import_string("django_gomq.observability.metrics.render")
    body, content_type = render(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


def _may_read(request: HttpRequest, site: Site) -> bool:
    config = site.config.metrics
    if config.access == "staff":
        user = getattr(request, "user", None)
        return bool(user is not None and user.is_active and user.is_staff)
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
