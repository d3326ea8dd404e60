"""The page of the switch: it turns it, and shows what follows in this process."""

from __future__ import annotations

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from clinic.answers import page
from clinic.laboratory.models import Analysis, Switch
from django_gomq import get_broker


class SwitchForm(forms.Form):
    """The position to turn the switch to."""

    mode = forms.ChoiceField(choices=Switch.Mode.choices)


@page("switches")
@require_http_methods(["GET", "HEAD", "POST"])
def switches(request: HttpRequest) -> HttpResponse:
    """Show the switch, or turn it."""
    if request.method != "POST":
        return _show(request)
    form = SwitchForm(request.POST)
    if not form.is_valid():
        return _show(request, status=400)
    Switch.turn(form.cleaned_data["mode"])
    return redirect("switches")


def _show(request: HttpRequest, status: int = 200) -> HttpResponse:
    context = {
        "mode": Switch.current(),
        "analyses": Analysis.objects.count(),
        "consumer": _numbers(),
    }
    return render(request, "laboratory/switches.html", context, status=status)


def _numbers() -> dict[str, int]:
    stats = get_broker().stats().consumers["laboratory.analysis"]
    return {
        "waiting": stats.depth,
        "in work": stats.in_flight,
        "waiting for a retry": stats.scheduled,
        "retried": stats.retries,
        "dropped": sum(stats.dropped.values()),
        "dead letters": stats.dead_lettered,
    }
