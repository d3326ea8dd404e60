"""Addresses of the records app."""

from __future__ import annotations

from django.urls import path

from clinic.records import api, pages

urlpatterns = [
    path("", pages.home, name="home"),
    path("records/", pages.add_record, name="add-record"),
    path("patients/", pages.patients, name="patients"),
    path("patients/add/", pages.add_patient, name="add-patient"),
    path("api/records/", api.records, name="api-records"),
    path("api/records/bulk/", api.bulk, name="api-bulk"),
    path("api/patients/", api.patients, name="api-patients"),
    path("api/patients/<int:pk>/", api.patient, name="api-patient"),
]
