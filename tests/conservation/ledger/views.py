from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from django_gomq import emit


def enter(request: HttpRequest) -> HttpResponse:
    """Emit one entry, and say what became of it."""
    receipt = emit("ledger.entry", int(request.GET["number"]))
    return HttpResponse(receipt.reason or receipt.state)
