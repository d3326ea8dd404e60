"""The page of what consumers gave up on, of all the apps."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from clinic.answers import page
from django_gomq import brokers

SHOWN = 20
"""Rows of the list."""


@page("dead-letters")
@require_safe
def dead_letters(request: HttpRequest) -> HttpResponse:
    """Show the newest dead letters of all processes."""
    kept = (one for broker in brokers.values() for one in broker.iter_dead_letters())
    newest = heapq.nlargest(SHOWN, kept, key=lambda letter: letter.time)
    rows = [(letter, datetime.fromtimestamp(letter.time, UTC)) for letter in newest]
    return render(request, "dead_letters.html", {"letters": rows})
