"""The ward over HTTP."""

from __future__ import annotations

from typing import NoReturn

from django.http import HttpRequest, JsonResponse

from tests.servers.ward import rounds


def tell(request: HttpRequest) -> JsonResponse:
    return JsonResponse(rounds.tell(float(request.GET["hold"])))


def emit_for_ever(request: HttpRequest) -> NoReturn:
    rounds.emit_for_ever()


def emit(request: HttpRequest) -> JsonResponse:
    kind, count, hold = (request.GET[key] for key in ("kind", "count", "hold"))
    return JsonResponse(rounds.emit_rounds(kind, int(count), float(hold)))
