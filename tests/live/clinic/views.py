"""What visitors of the clinic make happen."""

from __future__ import annotations

import os
import random

from django.http import HttpRequest, HttpResponse

from django_gomq import emit
from tests.live.clinic.settings import FOLDER

PAGES = ("/", "/records", "/lab", "/billing")


def visit(request: HttpRequest) -> HttpResponse:
    """Emit what a visit brings: many small events, few large ones; say who did."""
    count = int(request.GET.get("times", "1"))
    for _ in range(count):
        emit("page.viewed", {"path": random.choice(PAGES)})
        if random.random() < 0.5:
            emit("health.record.saved", {"record": random.randrange(10_000)})
        if random.random() < 0.4:
            emit("lab.requested", {"sample": random.randrange(10_000)})
        if random.random() < 0.3:
            emit("lab.result.ready", {"sample": random.randrange(10_000)})
        if random.random() < 0.3:
            emit(
                "billing.invoice.paid",
                {"invoice": random.randrange(10_000), "card": "4111111111111111"},
            )
    return HttpResponse(str(os.getpid()))


def mend(request: HttpRequest) -> HttpResponse:
    """Have the gateway answer from now on, in all processes."""
    (FOLDER / "mended").touch()
    return HttpResponse("ok")


def icon(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)
