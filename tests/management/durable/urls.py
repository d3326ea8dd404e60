from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_gomq import emit

LATER = 9
"""The last digit of what is not to be done soon."""


def do(request: HttpRequest, number: int) -> HttpResponse:
    emit("job.asked", number, delay=3600.0 if number % 10 == LATER else 0.0)
    return HttpResponse("asked")


urlpatterns = [
    path("do/<int:number>", do),
    path("gomq/", include("django_gomq.urls")),
]
