from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from tests.live.clinic import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("gomq/", include("django_gomq.urls")),
    path("visit", views.visit),
    path("mend", views.mend),
    path("favicon.ico", views.icon),  # browsers ask for it
]
