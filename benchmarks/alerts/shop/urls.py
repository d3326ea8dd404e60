"""Pages that emit, and pages that make trouble in the process that answers."""

from __future__ import annotations

import threading
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_gomq import emit, get_broker
from django_gomq.bus.worker.pool import HandlerPool


def visit(request: HttpRequest) -> HttpResponse:
    """Emit what an ordinary visit does."""
    for event in (
        "shop.order.paid",
        "shop.hog.fed",
        "shop.lone.called",
        "shop.small.filled",
        "shop.page.viewed",
    ):
        emit(event, {})
    return HttpResponse("thanks")


def tell(request: HttpRequest, event: str) -> HttpResponse:
    """Emit one kind ``times``, with the number that the query has."""
    told = {name: float(value) for name, value in request.GET.items()}
    for _ in range(int(told.pop("times", 1))):
        emit(event, told)
    return HttpResponse("told")


def _runtime() -> Any:
    broker = get_broker()
    broker.start()
    return broker._runtime  # noqa: SLF001 - trouble has no public door


def break_dispatcher(request: HttpRequest) -> HttpResponse:
    """Have the dispatcher die whenever it works."""

    def die(queue: object) -> None:
        raise MemoryError

    _runtime().backend._dispatcher.loop._work = die  # noqa: SLF001 - as above
    return HttpResponse("it dies")


def block_dispatcher(request: HttpRequest) -> HttpResponse:
    """Have the dispatcher wait for a lock for ever, while it counts as up."""
    working = _runtime().backend._dispatcher.loop._working  # noqa: SLF001 - as above

    def hold() -> None:
        with working:
            threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    return HttpResponse("it waits")


def end_thread(request: HttpRequest) -> HttpResponse:
    """Have one handler thread end, and the system give no other."""

    def refuse(pool: HandlerPool) -> None:
        raise RuntimeError("can't start new thread")

    pool = _runtime()._worker._pool  # noqa: SLF001 - as above
    HandlerPool.start_missing = refuse  # type: ignore[method-assign]
    pool._places[0].is_given_up = True  # noqa: SLF001 - as above
    return HttpResponse("it ends")


urlpatterns = [
    path("visit", visit),
    path("tell/<str:event>", tell),
    path("break", break_dispatcher),
    path("block", block_dispatcher),
    path("end", end_thread),
    path("gomq/", include("django_gomq.urls")),
]
