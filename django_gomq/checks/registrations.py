"""System checks of the setting and of what is registered; they know no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from django_gomq import startup
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import event_classes
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.registry import registry
from django_gomq.rules import check
from django_gomq.wiring import brokers


@register("gomq")
def check_settings(**options: Any) -> list[CheckMessage]:
    """Report wrong settings and registrations as errors."""
    problems = list(check(getattr(settings, "GOMQ", None)))
    found: list[CheckMessage] = [
        Error(one.text, hint=one.hint or None, id=one.id) for one in problems
    ]
    if not problems:
        found += _check_registrations()
    return found


def _check_registrations() -> Iterator[CheckMessage]:
    overrides = getattr(settings, "GOMQ", None) or {}
    try:
        registry.consumers(overrides.get("CONSUMERS"))
    except ConfigurationError as error:
        yield Error(
            str(error), hint="Correct GOMQ['CONSUMERS'] or the code.", id="gomq.E004"
        )


@register("gomq")
def check_event_classes(**options: Any) -> list[CheckMessage]:
    """Report two Event classes of one type: consumers would decode by either."""
    found: list[CheckMessage] = []
    places: dict[str, set[str]] = {}
    for cls in event_classes():
        place = f"{cls.__module__}.{cls.__qualname__}"
        places.setdefault(cls.__event_type__, set()).add(place)
    for event_type, names in places.items():
        if len(names) > 1:
            found.append(
                Error(
                    f"Several Event classes have the type {event_type!r}: "
                    f"{', '.join(sorted(names))}.",
                    hint="Keep one of them, or give the other another type.",
                    id="gomq.E005",
                )
            )
    return found


@register("gomq")
def check_skipped_modules(**options: Any) -> list[CheckMessage]:
    """Warn of consumer modules that were not used."""
    return [
        Warning(
            f"{one.module} was skipped: {one.missing!r}, which it imports, is not "
            "installed.",
            hint="If it holds no consumers of django-gomq (Channels names its files "
            "so too), add its app to GOMQ['AUTODISCOVER_EXCLUDE']; else install it.",
            id="gomq.W001",
        )
        for one in startup.skipped
    ]


@register("gomq")
def check_backpressure(**options: Any) -> list[CheckMessage]:
    """Warn where one consumer's backpressure holds others back."""
    consumers = [one for one in _consumers() if one.enabled]
    return [
        Warning(
            f"Consumer {one.name!r} has overflow='backpressure': when it is slow, it "
            f"holds back {', '.join(repr(other.name) for other in others)} too.",
            hint="Give it an event type of its own, or another overflow.",
            id="gomq.W002",
            obj=one.name,
        )
        for one in consumers
        if one.overflow == "backpressure" and (others := _neighbours(one, consumers))
    ]


def _consumers() -> Sequence[Consumer]:
    return brokers.site.consumers if brokers.site is not None else []


def _neighbours(one: Consumer, consumers: Sequence[Consumer]) -> list[Consumer]:
    mine = [Pattern(text) for text in one.types]
    return [
        other
        for other in consumers
        if other is not one
        and any(one.overlaps(Pattern(text)) for one in mine for text in other.types)
    ]
