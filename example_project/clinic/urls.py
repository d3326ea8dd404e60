"""Addresses of the clinic; each app lists its own."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from clinic.dead_letters import dead_letters
from clinic.follow_up import record

urlpatterns = [
    path("", include("clinic.records.urls")),
    path("records/<int:pk>/", record, name="record"),
    path("dead-letters/", dead_letters, name="dead-letters"),
    path("statistics/", include("clinic.statistics.urls")),
    path("audit/", include("clinic.audit.urls")),
    path("switches/", include("clinic.laboratory.urls")),
    path("admin/", admin.site.urls),
    path("gomq/", include("django_gomq.urls")),
]
