"""The page of the audit trail; it reads entries and writes none."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from clinic.answers import page
from clinic.audit.models import AuditEntry

SHOWN = 25
"""Rows of the page: the end of the trail, not all of it."""


@page("audit")
@require_safe
def trail(request: HttpRequest) -> HttpResponse:
    """Show the latest entries."""
    entries = AuditEntry.objects.order_by("-pk")[:SHOWN]
    context = {"entries": entries, "total": AuditEntry.objects.count()}
    return render(request, "audit/trail.html", context)
