"""URLs to include: ``path("gomq/", include("django_gomq.urls"))``."""

from __future__ import annotations

from django.urls import path

from django_gomq import views

app_name = "gomq"
urlpatterns = [
    path("metrics", views.metrics, name="metrics"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
]
