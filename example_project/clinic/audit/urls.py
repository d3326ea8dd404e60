"""Addresses of the audit app."""

from __future__ import annotations

from django.urls import path

from clinic.audit import pages

urlpatterns = [path("", pages.trail, name="audit")]
