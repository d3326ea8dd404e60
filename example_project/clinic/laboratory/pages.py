"""The page of the switch: it turns it, and shows what follows.

The numbers are those of this process; where a worker runs the consumer, it has them.
"""

from __future__ import annotations

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from clinic.answers import page
from clinic.laboratory.models import Analysis, Switch
from django_gomq import Broker, brokers

CONSUMER = "laboratory.analysis"


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
    broker = _broker()
    context = {
        "mode": Switch.current(),
        "analyses": Analysis.objects.count(),
        "backend": broker.backend_name,
        "consumer": _numbers(broker),
    }
    return render(request, "laboratory/switches.html", context, status=status)


def _broker() -> Broker:
    """Return where the events of the laboratory wait for it."""
    return next(
        broker
        for broker in brokers.values()
        if any(consumer.name == CONSUMER for consumer in broker.consumers)
    )


def _numbers(broker: Broker) -> dict[str, int]:
    stats = broker.stats().consumers[CONSUMER]
    return {
        "waiting": stats.depth,
        "in work": stats.in_flight,
        "waiting for a retry": stats.scheduled,
        "retried": stats.retries,
        "dropped": sum(stats.dropped.values()),
        "dead letters": stats.dead_lettered,
    }
