from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_gomq import emit


def visit(request: HttpRequest) -> HttpResponse:
    """Emit, and be busy a little, so that the next request meets another worker."""
    receipt = emit("visit.made", {"path": request.path})
    time.sleep(0.02)
    return HttpResponse(receipt.state)


urlpatterns = [path("", visit)]
