"""Addresses of the statistics app."""

from __future__ import annotations

from django.urls import path

from clinic.statistics import pages

urlpatterns = [path("", pages.counts, name="statistics")]
