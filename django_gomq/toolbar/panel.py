"""The panel: its rows as of the end of the request, brought up to date when shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from debug_toolbar.panels import Panel
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from django_gomq.options import Receipt

from . import seen
from .seen import Emits, Emitted, OutcomeHook

_STATES: Final = {
    "accepted": "accepted",
    "pending": "waits for the commit",
    "unknown": "unknown: the server did not answer in time",
}
_UNHANDLED: Final = {
    "pending": "after the commit",
    "refused": "never",
    "unknown": "not known",
}


class EventsPanel(Panel):
    """What a request emitted by ``emit``, to whom it goes, and what became of it.

    It shows no data of events. Belongs to one request, on whatever threads that runs.
    """

    is_async = True
    title = "Events"
    template = "gomq/toolbar.html"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._emits = Emits()

    def _stats(self) -> Mapping[str, Any]:
        # Theirs have no types.
        found: Mapping[str, Any] = self.get_stats()  # type: ignore[no-untyped-call]
        return found

    @property
    def nav_subtitle(self) -> str:
        """Say how many there were, and how many nobody will see."""
        stats = self._stats()
        refused = stats.get("refused", 0)
        return f"{stats.get('count', 0)} emitted" + (
            f", {refused} refused or rolled back" if refused else ""
        )

    def enable_instrumentation(self) -> None:
        """Note what this request emits."""
        seen.begin(self._emits)

    def disable_instrumentation(self) -> None:
        """Note no more."""
        seen.end(self._emits)

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:
        """Keep what is known at the end of the request."""
        listed, others = self._emits.listed, self._emits.others
        receipts = [*(emitted.receipt for emitted in listed), *others]
        self.record_stats(  # type: ignore[no-untyped-call]
            {
                "pid": os.getpid(),
                "count": len(receipts),
                "more": len(others),
                "refused": sum(not receipt for receipt in receipts),
                "rows": [_row(emitted) for emitted in listed],
            }
        )
        others.clear()

    @property
    def content(self) -> str:
        """Return the table, with what this process knows by now."""
        stats = self._stats()
        is_here = stats.get("pid") == os.getpid()
        rows = stats.get("rows", [])
        context = {
            **stats,
            "rows": [_brought_up_to_date(row) for row in rows] if is_here else rows,
            "is_here": is_here,
        }
        return render_to_string(self.template, context)


def _brought_up_to_date(row: Mapping[str, Any]) -> Mapping[str, Any]:
    emitted = seen.find(row["id"])
    return row if emitted is None else _row(emitted)


def _row(emitted: Emitted) -> Mapping[str, Any]:
    receipt, broker = emitted.receipt, emitted.broker
    message = receipt.message
    names = [
        consumer.name
        for consumer in broker.consumers
        if consumer.subscribes_to(message.type)
    ]
    return {
        "id": message.id,
        "type": message.type,
        "broker": broker.alias,
        "when": "on commit" if emitted.waits else "at once",
        "state": _state(receipt),
        "is_bad": not receipt,
        "consumers": [(name, _fate(emitted, name)) for name in names],
    }


def _state(receipt: Receipt) -> str:
    if receipt.state != "refused":
        return _STATES[receipt.state]
    reason = (receipt.reason or "").replace("_", " ")
    return reason if reason == "rolled back" else f"refused: {reason}"


def _fate(emitted: Emitted, consumer: str) -> str:
    """Say what became of an event at a consumer, as far as this process knows."""
    fate = emitted.fates.get(consumer)
    if fate is not None:
        return fate
    receipt = emitted.receipt
    if receipt.state != "accepted":
        return _UNHANDLED[receipt.state]
    if not OutcomeHook.in_use:
        return "not known: the bus started before the toolbar"
    if emitted.broker.capabilities.durable:
        return "not handled in this process; others may have it"
    return "waits in this process"
