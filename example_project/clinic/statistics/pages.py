"""The statistics page; it reads counts and adds to none."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from clinic.answers import page
from clinic.statistics.models import Count


@page("statistics")
@require_safe
def counts(request: HttpRequest) -> HttpResponse:
    """Show every count, by consumer."""
    rows = Count.objects.order_by("consumer", "-value")
    return render(request, "statistics/counts.html", {"counts": rows})
