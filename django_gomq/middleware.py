"""Answers the probes and the metrics page before any other middleware is asked.

Who asks for them knows neither the site's name nor its log-in: kubelet and Prometheus
ask by the address of a pod and over HTTP, which ALLOWED_HOSTS, SECURE_SSL_REDIRECT and
pages of maintenance refuse. A healthy process must not be restarted for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.urls import Resolver404, resolve

from django_gomq import views
from django_gomq.site import brokers

View = Callable[[HttpRequest], HttpResponseBase]
_PROBES: Final[frozenset[View]] = frozenset({views.livez, views.readyz})
_ENDINGS: Final = ("/livez", "/readyz", "/metrics")
"""So that every other request costs one comparison."""


class ProbeMiddleware:
    """Stands above the others: ``ready()`` puts it there. Runs sync and async.

    Hands on whatever is not one of our pages, the metrics of
    ``METRICS["ACCESS"] = "staff"`` too: who is staff is known to others below.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[
            [HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]
        ],
    ) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer one request; blocks no event loop."""
        view = _view_of(request) if request.path_info.endswith(_ENDINGS) else None
        if view is None:
            return self._get_response(request)
        if self._is_async:
            # Not on the thread of sync views, which one of them may hold up.
            return sync_to_async(view, thread_sensitive=False)(request)
        return view(request)


def _view_of(request: HttpRequest) -> View | None:
    try:
        view: View = resolve(request.path_info).func
    except Resolver404:
        return None
    if view in _PROBES or (view == views.metrics and not _needs_a_user()):
        return view
    return None


def _needs_a_user() -> bool:
    site = brokers.site
    return site is not None and site.config.metrics.access == "staff"
