from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_gomq import emit
from tests.management.shop.orders.paying import pay_one


def home(request: HttpRequest) -> HttpResponse:
    emit("page.viewed", {"path": request.path})
    emit(f"page.{request.method}.viewed", {"path": request.path})
    return HttpResponse("hello")


def pay(request: HttpRequest, order_id: int) -> HttpResponse:
    pay_one(order_id)
    return HttpResponse("paid")


urlpatterns = [
    path("", home),
    path("pay/<int:order_id>", pay),
    path("gomq/", include("django_gomq.urls")),
]
