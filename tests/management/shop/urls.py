from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_gomq import emit


def home(request: HttpRequest) -> HttpResponse:
    emit("page.viewed", {"path": request.path})
    emit(f"page.{request.method}.viewed", {"path": request.path})
    return HttpResponse("hello")


urlpatterns = [path("", home), path("gomq/", include("django_gomq.urls"))]
