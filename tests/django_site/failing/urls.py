from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_gomq import emit


def view_page(request: HttpRequest, number: int) -> HttpResponse:
    emit("page.viewed", {"id": number})
    return HttpResponse("seen")


urlpatterns = [
    path("gomq/", include("django_gomq.urls")),
    path("pages/<int:number>", view_page),
]
