"""The JSON endpoints of the records app: they read a body, save, and answer.

They have no session, so they are exempt from CSRF protection.
"""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from clinic.answers import tell, tell_rolled_back, tell_sent
from clinic.records.forms import PatientForm, RecordForm
from clinic.records.models import HealthRecord, Patient
from clinic.records.services import UnsignedRecordError, save_record, save_records

MAX_BULK = 100
"""Records of one bulk request: one transaction must not hold the database for long."""


@csrf_exempt
@require_POST
def records(request: HttpRequest) -> HttpResponse:
    """Save one record and say whether its event was accepted."""
    try:
        record = _record(_body(request))
        receipt = save_record(record)
    except InvalidError as error:
        return JsonResponse({"errors": error.errors}, status=400)
    except UnsignedRecordError as error:
        return _rolled_back(error, 1)
    answer = JsonResponse({"id": record.pk, "accepted": bool(receipt)}, status=201)
    return tell(answer, [receipt])


@csrf_exempt
@require_POST
def bulk(request: HttpRequest) -> HttpResponse:
    """Save many records and emit their events as one batch: all of them, or none."""
    try:
        batch = [_record(row) for row in _rows(_body(request))]
        receipts = save_records(batch)
    except InvalidError as error:
        return JsonResponse({"errors": error.errors}, status=400)
    except UnsignedRecordError as error:
        return _rolled_back(error, len(batch))
    accepted = sum(map(bool, receipts))
    answer = {"ids": [record.pk for record in batch], "accepted": accepted}
    return tell(JsonResponse(answer, status=201), receipts)


@csrf_exempt
@require_POST
def patients(request: HttpRequest) -> HttpResponse:
    """Save a patient; a model signal emits `patient.created`."""
    try:
        patient = _patient(_body(request))
    except InvalidError as error:
        return JsonResponse({"errors": error.errors}, status=400)
    answer = JsonResponse({"id": patient.pk}, status=201)
    return tell_sent(answer, "patient.created")


@csrf_exempt
@require_http_methods(["PUT", "DELETE"])
def patient(request: HttpRequest, pk: int) -> HttpResponse:
    """Change or delete a patient; model signals emit what happened."""
    found = get_object_or_404(Patient, pk=pk)
    if request.method == "DELETE":
        found.delete()
        return tell_sent(HttpResponse(status=204), "patient.deleted")
    try:
        _patient(_body(request), found)
    except InvalidError as error:
        return JsonResponse({"errors": error.errors}, status=400)
    return tell_sent(JsonResponse({"id": found.pk}), "patient.updated")


class InvalidError(Exception):
    """The body is not what the endpoint takes; `errors` says why, by field."""

    def __init__(self, errors: object) -> None:
        super().__init__(errors)
        self.errors = errors


def _rolled_back(error: UnsignedRecordError, count: int) -> HttpResponse:
    errors = {"signed_by": error.__doc__}
    answer = JsonResponse({"errors": errors, "rolled_back": True}, status=422)
    return tell_rolled_back(answer, "health.record.saved", count)


def _body(request: HttpRequest) -> dict[str, object]:
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise InvalidError({"body": f"not JSON: {error}"}) from error
    if not isinstance(body, dict):
        raise InvalidError({"body": "must be a JSON object"})
    return body


def _rows(body: dict[str, object]) -> list[dict[str, object]]:
    rows = body.get("records")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidError({"records": "must be a list of records"})
    if not 0 < len(rows) <= MAX_BULK:
        raise InvalidError({"records": f"must hold 1 to {MAX_BULK} records"})
    return rows


def _record(row: dict[str, object]) -> HealthRecord:
    form = RecordForm(row)
    if not form.is_valid():
        raise InvalidError(form.errors)
    record: HealthRecord = form.save(commit=False)
    return record


def _patient(body: dict[str, object], instance: Patient | None = None) -> Patient:
    form = PatientForm(body, instance=instance)
    if not form.is_valid():
        raise InvalidError(form.errors)
    patient: Patient = form.save()
    return patient
