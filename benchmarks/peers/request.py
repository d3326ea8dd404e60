"""A bare Django request, for scale: the stock middleware and a view that says ok."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import path

from benchmarks.project import configure
from benchmarks.sink import NS, now

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]


def view(request: HttpRequest) -> HttpResponse:
    """Answer at once."""
    return HttpResponse(b"ok")


urlpatterns = [path("", view)]


def bare(requests: int) -> Callable[[], Mapping[str, float]]:
    """Serve requests one after another, without a socket."""
    configure(
        [], MIDDLEWARE=MIDDLEWARE,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    )  # fmt: skip
    settings.ROOT_URLCONF = __name__
    django.setup()
    application = WSGIHandler()
    environ = RequestFactory().get("/").environ

    def start_response(status: str, headers: object, info: object = None) -> Any:
        """Take the headers of an answer that nobody waits for."""

    def serve() -> int:
        one = dict(environ)
        began = now()
        b"".join(application(one, start_response))
        return now() - began

    return lambda: {"each": statistics.median(serve() for _ in range(requests)) * NS}
