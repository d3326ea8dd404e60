"""The ward's addresses."""

from __future__ import annotations

from django.apps import apps
from django.urls import URLPattern, URLResolver, include, path

from tests.servers.ward import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("tell", views.tell),
    path("emit", views.emit),
    path("emit_for_ever", views.emit_for_ever),
]
if apps.is_installed("django_gomq"):
    urlpatterns.append(path("gomq/", include("django_gomq.urls")))
