"""The page of one record with what its consumers made of it; it knows all the apps.

The apps know only the event. This page belongs to the site, not to any of them.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from clinic.answers import page
from clinic.audit.models import AuditEntry
from clinic.laboratory.models import Analysis
from clinic.notifications.models import Notification
from clinic.records.models import HealthRecord
from clinic.statistics.models import Count


@page("record")
@require_safe
def record(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a record and what followed from it."""
    found = get_object_or_404(HealthRecord.objects.select_related("patient"), pk=pk)
    context = {
        "record": found,
        "counted": Count.objects.filter(
            consumer="statistics.records", name=found.kind
        ).first(),
        "notification": Notification.objects.filter(record_id=pk).first(),
        "analysis": Analysis.objects.filter(record_id=pk).first(),
        "entry": AuditEntry.objects.filter(record_id=pk).first(),
    }
    return render(request, "record.html", context)
