"""The metrics page and the probes; each works under WSGI and ASGI and never blocks."""

from __future__ import annotations

import secrets

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_gomq.wiring import Site, brokers


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return every metric of this process; OpenMetrics, with exemplars, if asked for.

    Who may read it is ``GOMQ["METRICS"]["ACCESS"]``.
    """
    site = brokers.site
    if site is not None and not _may_read(request, site):
        refusal = HttpResponse("Not allowed.\n", status=403, content_type="text/plain")
        if site.config.metrics.access == "token":
            refusal.status_code = 401
            refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    render = import_string("django_gomq.observability.metrics.render")
    body, content_type = render(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


def _may_read(request: HttpRequest, site: Site) -> bool:
    config = site.config.metrics
    if config.access == "token":
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return secrets.compare_digest(given.encode(), config.token.encode())
    if config.access == "staff":
        user = getattr(request, "user", None)
        return bool(user is not None and user.is_active and user.is_staff)
    return True


@require_safe
@never_cache
def livez(request: HttpRequest) -> JsonResponse:
    """Return 200 while the threads that should run do run; depth plays no part."""
    site = brokers.site
    dead = [] if site is None else _dead_parts(site)
    return JsonResponse({"alive": not dead, "dead": dead}, status=503 if dead else 200)


def _dead_parts(site: Site) -> list[str]:
    running = [one for one in site.brokers.values() if one.is_started]
    dead = [f"reader of {one.alias}" for one in running if not one.stats().reader_up]
    worker = site.worker
    if running and worker is not None and worker.alive < worker.threads:
        dead.append("handler threads")
    return dead


@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Return 200 as long as no broker of this process drains or has stopped."""
    site = brokers.site
    closed = (
        []
        if site is None
        else [one.alias for one in site.brokers.values() if one.is_closed]
    )
    return JsonResponse(
        {"ready": not closed, "closed": closed}, status=503 if closed else 200
    )
