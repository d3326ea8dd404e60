from __future__ import annotations

from contextlib import suppress

from debug_toolbar.toolbar import debug_toolbar_urls
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_gomq import aemit, emit, emit_many, get_broker

PAGE = "<html><body>A page.</body></html>"


def at_once(request: HttpRequest) -> HttpResponse:
    emit("page.viewed", {"secret": "a password"})
    emit("nobody.listens", {})
    return HttpResponse(PAGE)


def in_transactions(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        emit("record.saved", {})
        with suppress(LookupError), transaction.atomic():
            emit("record.lost", {})
            raise LookupError
        emit("record.hurried", {}, on_commit=False)
    return HttpResponse(PAGE)


def waiting(request: HttpRequest) -> HttpResponse:
    emit("report.asked", {})
    return HttpResponse(PAGE)


def refused(request: HttpRequest) -> HttpResponse:
    broker = get_broker()
    broker.start()
    broker.close(timeout=60)
    emit("page.viewed", {})
    return HttpResponse(PAGE)


def stored(request: HttpRequest) -> HttpResponse:
    emit("stored.row", {})
    return HttpResponse(PAGE)


def many(request: HttpRequest) -> HttpResponse:
    emit_many([("record.saved", {"number": number}) for number in range(130)])
    return HttpResponse(PAGE)


def many_refused(request: HttpRequest) -> HttpResponse:
    emit_many([("record.saved", {"number": number}) for number in range(110)])
    emit_many([("nobody.listens", {}) for _ in range(7)])
    with suppress(LookupError), transaction.atomic():
        emit("record.lost", {})
        raise LookupError
    return HttpResponse(PAGE)


def unrelated(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE)


async def awaited(request: HttpRequest) -> HttpResponse:
    for number in range(int(request.GET["times"])):
        await aemit("record.saved", {"number": number})
    return HttpResponse(PAGE)


urlpatterns = [
    path("at-once", at_once),
    path("in-transactions", in_transactions),
    path("waiting", waiting),
    path("refused", refused),
    path("stored", stored),
    path("many", many),
    path("many-refused", many_refused),
    path("unrelated", unrelated),
    path("awaited", awaited),
    *debug_toolbar_urls(),
]
