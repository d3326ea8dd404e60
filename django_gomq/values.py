"""Django's values on their way to JSON: lazy texts pass, the rest gets advice."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import Promise

from django_gomq.bus.codec import no_adapt
from django_gomq.bus.errors import EncodeError


def adapt(value: Any) -> Any:
    """Return the text of a lazy translation; raise EncodeError for all else."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Model):
        name = type(value).__name__
        raise EncodeError(
            f"{name} is a model instance: emit its pk and let the handler load it, or "
            "the fields that the event is about."
        )
    if isinstance(value, QuerySet):
        raise EncodeError(
            "A queryset is not data: emit list(queryset.values_list('pk', flat=True)), "
            "or one event each with emit_many()."
        )
    if isinstance(value, HttpRequest):
        raise EncodeError("A request is not data: emit what the handler needs of it.")
    return no_adapt(value)
