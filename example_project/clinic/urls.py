"""Addresses of the clinic; each app lists its own."""

from __future__ import annotations

from django.urls import include, path

from clinic.follow_up import record

urlpatterns = [
    path("", include("clinic.records.urls")),
    path("records/<int:pk>/", record, name="record"),
    path("statistics/", include("clinic.statistics.urls")),
    path("audit/", include("clinic.audit.urls")),
    path("switches/", include("clinic.laboratory.urls")),
    path("gomq/", include("django_gomq.urls")),
]
