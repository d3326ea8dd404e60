from __future__ import annotations

import os

from django.http import HttpRequest, JsonResponse

from django_gomq import emit
from tests.django_site.clinic.events import RecordSaved


def fail(request: HttpRequest) -> JsonResponse:
    """Save, and fail after that."""
    save(request)
    raise RuntimeError("the view failed after its emit")


def save(request: HttpRequest) -> JsonResponse:
    receipt = emit(RecordSaved(record_id=int(request.GET["record"])))
    return JsonResponse({"state": receipt.state, "pid": os.getpid()})
