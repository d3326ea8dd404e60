"""Pauses, resumes and resizes a consumer in all processes, as a form asks for it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.consumer import MAX_CAPACITY
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.operations.desired import Operator, desire

from . import amounts
from .mounting import PAUSE, RESIZE


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of one consumer."""

    broker: str
    consumer: str
    state: ConsumerState

    @property
    def told(self) -> str:
        """What to tell who asked."""
        if self.state.capacity is not None:
            return f"{self.consumer}: capacity {amounts.count(self.state.capacity)}."
        return f"{self.consumer}: {'pause' if self.state.paused else 'resume'} asked."

    @property
    def permission(self) -> str:
        """What who asks has to be allowed to."""
        return PAUSE if self.state.capacity is None else RESIZE


def asked_for(form: Mapping[str, object]) -> Act:
    """Return what a form asks for; raises ValueError for what is no such form."""
    for word, paused in (("pause", True), ("resume", False)):
        if word in form:
            return _act(str(form[word]), ConsumerState(paused=paused))
    if "resize" not in form:
        raise ValueError("The form says neither pause, resume nor resize.")
    text = str(form.get("capacity", ""))
    capacity = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= capacity <= MAX_CAPACITY:
        raise ValueError(f"The capacity is a number from 1 to {MAX_CAPACITY}.")
    return _act(str(form["resize"]), ConsumerState(capacity=capacity))


def _act(key: str, state: ConsumerState) -> Act:
    broker, _, consumer = key.rpartition("/")
    if not broker or not consumer:
        raise ValueError(f"{key!r:.200} names no consumer of a broker.")
    return Act(broker=broker, consumer=consumer, state=state)


def carry_out(act: Act, request: HttpRequest) -> None:
    """Have it done in every process, and tell who asked how that went.

    Blocks for the database or the server. Raises PermissionDenied for nobody.
    """
    if not request.user.is_authenticated:
        raise PermissionDenied
    operator = Operator.of(request.user)
    try:
        desire(act.broker, act.consumer, act.state, operator)
    except ConfigurationError as error:
        messages.error(request, str(error), fail_silently=True)
    except Exception as error:  # noqa: BLE001 - whatever the client of a server raises
        text = f"{act.consumer} may be as it was: {describe_error(error)}"
        messages.error(request, text, fail_silently=True)
    else:
        messages.success(request, act.told, fail_silently=True)
