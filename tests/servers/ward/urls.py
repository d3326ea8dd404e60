"""The ward's addresses."""

from __future__ import annotations

from django.urls import include, path

from tests.servers.ward import views

urlpatterns = [
    path("tell", views.tell),
    path("emit", views.emit),
    path("emit_for_ever", views.emit_for_ever),
    path("gomq/", include("django_gomq.urls")),
]
