"""Addresses of the laboratory app."""

from __future__ import annotations

from django.urls import path

from clinic.laboratory import pages

urlpatterns = [path("", pages.switches, name="switches")]
