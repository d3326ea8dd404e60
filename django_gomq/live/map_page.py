"""Who emits and who listens, as ``gomq list`` tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
from django.conf import settings
from django.urls import get_resolver

from django_gomq.discovery import skipped
from django_gomq.listing.collect import gather
from django_gomq.listing.emitters import project_files
from django_gomq.listing.overview import EmitCall, EventRow, Overview
from django_gomq.site import Site

from .mounting import Mount

_gathered: Final[WeakKeyDictionary[Site, Overview]] = WeakKeyDictionary()
"""Source is read once: it does not change under a running process."""
_lock: Final = Lock()


def overview_of(site: Site) -> Overview:
    """Return who emits and who listens; the first call reads source. Thread-safe."""
    with _lock:
        if site not in _gathered:
            if getattr(settings, "ROOT_URLCONF", ""):
                _ = get_resolver().url_patterns  # views emit, too
            _gathered[site] = gather(site, project_files(), skipped)
        return _gathered[site]


class Listener(msgspec.Struct, frozen=True):
    """A consumer, and the address of its page."""

    name: str
    address: str


class MapRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event: from where, to whom."""

    type: str
    version: int | None
    broker: str
    emitters: Sequence[EmitCall]
    consumers: Sequence[Listener]


def context(site: Site, mount: Mount) -> Mapping[str, Any]:
    """Return what the page of all events shows."""
    found = overview_of(site)
    return {
        "events": [_row(event, mount) for event in found.events],
        "dynamic": found.dynamic,
        "warnings": found.warnings,
    }


def _row(event: EventRow, mount: Mount) -> MapRow:
    return MapRow(
        type=event.type,
        version=event.version,
        broker=event.broker,
        emitters=_one_a_line(event.emitters),
        consumers=[
            Listener(name, mount.address("live_consumer", event.broker, name))
            for name in event.consumers
        ],
    )


def _one_a_line(calls: Sequence[EmitCall]) -> Sequence[EmitCall]:
    return list({call.where: call for call in calls}.values())


def emits_for(site: Site, broker: str, consumer: str) -> Sequence[EventRow]:
    """Return the events that a consumer gets from this broker, with their emitters."""
    return [
        msgspec.structs.replace(event, emitters=_one_a_line(event.emitters))
        for event in overview_of(site).events
        if event.broker == broker and consumer in event.consumers
    ]
