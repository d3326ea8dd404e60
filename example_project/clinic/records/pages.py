"""Pages of the records app: lists and forms; the rows are saved by `services`."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from clinic.answers import page, tell, tell_rolled_back, tell_sent
from clinic.records.forms import PatientForm, RecordForm
from clinic.records.models import HealthRecord, Patient
from clinic.records.services import UnsignedRecordError, save_record
from django_gomq import brokers

SHOWN = 12
"""Rows of a list: as many as fit on a screen, whatever the traffic has saved."""


@page("home")
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show the latest records and the form for the next one."""
    return _home(request, RecordForm())


@require_POST
def add_record(request: HttpRequest) -> HttpResponse:
    """Save a record from the form; show the form again if it cannot be saved."""
    form = RecordForm(request.POST)
    if not form.is_valid():
        return _home(request, form, status=400)
    record = form.save(commit=False)
    try:
        receipt = save_record(record)
    except UnsignedRecordError as error:
        form.add_error("signed_by", str(error.__doc__))
        answer = _home(request, form, status=422)
        return tell_rolled_back(answer, "health.record.saved", 1)
    return tell(redirect("record", pk=record.pk), [receipt])


@page("patients")
@require_safe
def patients(request: HttpRequest) -> HttpResponse:
    """Show the patients and the form for a new one."""
    return _patients(request, PatientForm())


@require_POST
def add_patient(request: HttpRequest) -> HttpResponse:
    """Save a patient from the form; a model signal emits `patient.created`."""
    form = PatientForm(request.POST)
    if not form.is_valid():
        return _patients(request, form, status=400)
    form.save()
    return tell_sent(redirect("patients"), "patient.created")


def _home(request: HttpRequest, form: RecordForm, status: int = 200) -> HttpResponse:
    records = HealthRecord.objects.select_related("patient").order_by("-pk")[:SHOWN]
    # The newest hundred: a select box with every patient of the traffic helps nobody.
    newest = Patient.objects.order_by("-pk").values_list("pk", "name")[:100]
    form.fields["patient"].widget.choices = [("", "choose ..."), *newest]
    context = {
        "form": form,
        "records": records,
        "total": HealthRecord.objects.count(),
        "backends": _backends(),
    }
    return render(request, "records/home.html", context, status=status)


def _backends() -> list[tuple[str, str]]:
    """Return every consumer with where its events wait for it."""
    found: dict[str, list[str]] = {}
    for broker in brokers.values():
        for consumer in broker.consumers:
            found.setdefault(consumer.name, []).append(broker.backend_name)
    return [(name, " and ".join(sorted(found[name]))) for name in sorted(found)]


def _patients(
    request: HttpRequest, form: PatientForm, status: int = 200
) -> HttpResponse:
    newest = Patient.objects.order_by("-pk")[:SHOWN]
    context = {"form": form, "patients": newest, "total": Patient.objects.count()}
    return render(request, "records/patients.html", context, status=status)
