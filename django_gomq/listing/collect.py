"""Puts the overview together, from a site and from its source."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from django.utils.module_loading import import_string

from django_gomq.bus.consumer import Consumer, ConsumerOptions
from django_gomq.bus.errors import ConfigurationError, did_you_mean
from django_gomq.bus.event import EventMeta, event_classes
from django_gomq.bus.message import validate_type
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.retry import Retry
from django_gomq.discovery import Skipped
from django_gomq.emitters import DEFAULT, Routes
from django_gomq.site import Site

from .emitters import find_emitters
from .overview import (
    BrokerRow,
    ConsumerRow,
    Declared,
    EmitCall,
    EventRow,
    Overview,
    RouteRow,
    WarningRow,
)


def find_warnings(
    overview: Overview,
    misnamed: Mapping[str, Sequence[EmitCall]],
    unreadable: Mapping[str, str],
    skipped: Sequence[Skipped],
) -> Iterator[WarningRow]:
    """Yield a warning for whoever has no other side, and for what could not be read."""
    for skip in skipped:
        text = (
            f"{skip.module} was skipped with all its consumers: {skip.missing} is not "
            "installed."
        )
        yield WarningRow(kind="skipped", subject=skip.module, text=text)
    yield from _unheard(overview)
    yield from _unfed(overview)
    wrong = [(call, event) for event in misnamed for call in misnamed[event]]
    for call, event in sorted(wrong):
        text = f"{call.where} emits {event!r:.100}, which is no event type."
        yield WarningRow(kind="not_a_type", subject=call.where, text=text)
    for file, reason in sorted(unreadable.items()):
        text = f"{file} cannot be read, so what it emits is not here: {reason}"
        yield WarningRow(kind="unreadable", subject=file, text=text)


def _unheard(overview: Overview) -> Iterator[WarningRow]:
    heard = [event.type for event in overview.events if event.consumers]
    for event in overview.events:
        if not event.consumers and not event.may_be_unheard:
            hint = did_you_mean(event.type, heard)
            text = f"Nobody listens to {event.type}{hint or '.'}"
            yield WarningRow(kind="no_consumer", subject=event.type, text=text)


def _unfed(overview: Overview) -> Iterator[WarningRow]:
    emitted = {event.type for event in overview.events if event.emitters}
    count = len(overview.dynamic)
    perhaps = f" ({count} dynamic emit{'s' * (count > 1)} may)" if count else ""
    for consumer in overview.consumers:
        if consumer.enabled and emitted.isdisjoint(consumer.events):
            hints = [did_you_mean(text, emitted) for text in consumer.types]
            hint = next(filter(None, hints), ".")
            text = f"Nobody in sight emits to {consumer.name}{perhaps}{hint}"
            yield WarningRow(kind="no_emitter", subject=consumer.name, text=text)


_DEFAULTS: Final = {
    field.name: field.default for field in msgspec.structs.fields(Consumer)
}


def gather(
    site: Site, files: Mapping[str, Path], skipped: Sequence[Skipped] = ()
) -> Overview:
    """Return who emits and who listens. Reads source files; starts nothing."""
    found = find_emitters(files)
    by_type = {
        event: found.by_event[event] for event in found.by_event if event is not None
    }
    emitted = {event: by_type[event] for event in by_type if _is_type(event)}
    events = list(_events(site, emitted))
    known = [event.type for event in events]
    overview = Overview(
        events=events,
        consumers=[_consumer(site, consumer, known) for consumer in _by_name(site)],
        brokers=[_broker(site, alias) for alias in sorted(site.brokers)],
        routes=list(_routes(site.config.routes)),
        dynamic=found.by_event.get(None, ()),
    )
    misnamed = {event: by_type[event] for event in by_type.keys() - emitted}
    warnings = find_warnings(overview, misnamed, found.unreadable, skipped)
    return msgspec.structs.replace(overview, warnings=list(warnings))


def _by_name(site: Site) -> Sequence[Consumer]:
    return sorted(site.consumers, key=lambda consumer: consumer.name)


def _events(
    site: Site, emitted: Mapping[str, Sequence[EmitCall]]
) -> Iterator[EventRow]:
    classes: dict[str, list[EventMeta]] = defaultdict(list)
    for cls in event_classes():
        classes[cls.__event_type__].append(cls)
    consumed = {
        text
        for consumer in site.consumers
        if consumer.enabled
        for text in _exact(consumer)
    }
    listed = set(site.config.events)
    for event in sorted({*classes, *listed, *consumed, *emitted}):
        own = classes.get(event, ())
        kinds: Mapping[Declared, bool] = {
            "class": event in classes,
            "settings": event in listed,
            "consumer": event in consumed,
        }
        yield EventRow(
            type=event,
            version=max((cls.__event_version__ for cls in own), default=None),
            classes=sorted(map(_path_of, own)),
            declared=[kind for kind, holds in kinds.items() if holds] or ["emit"],
            may_be_unheard=any(cls.__no_consumer__ == "ignore" for cls in own),
            broker=site.route(event),
            consumers=[
                consumer.name for consumer in _by_name(site) if _hears(consumer, event)
            ],
            emitters=emitted.get(event, ()),
        )


def _exact(consumer: Consumer) -> Iterator[str]:
    return (text for text in consumer.types if Pattern(text).is_exact)


def _hears(consumer: Consumer, event: str) -> bool:
    return consumer.enabled and consumer.subscribes_to(event)


def _is_type(event: str) -> bool:
    try:
        validate_type(event)
    except ConfigurationError:
        return False
    return True


def _consumer(site: Site, consumer: Consumer, known: Sequence[str]) -> ConsumerRow:
    routes = Routes(site.config.routes)
    return ConsumerRow(
        name=consumer.name,
        handler=_path_of(consumer.handler),
        types=consumer.types,
        brokers=[
            alias
            for alias in sorted(site.brokers)
            if routes.share_of(consumer, alias) is not None
        ],
        events=[event for event in known if consumer.subscribes_to(event)],
        enabled=consumer.enabled,
        options=_options(consumer),
    )


def _path_of(handler: Any) -> str:
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


def _options(consumer: Consumer) -> Mapping[str, Any]:
    values = {name: getattr(consumer, name) for name in ConsumerOptions.__annotations__}
    return {
        name: _plain(value) if isinstance(value, Retry) else value
        for name, value in values.items()
        if value != _DEFAULTS[name]
    }


def _plain(retry: Retry) -> Mapping[str, Any]:
    """Return a Retry as data: the attempts, and what differs from the default."""
    default = Retry()
    found: dict[str, Any] = {"attempts": retry.attempts}
    for field in retry.__dataclass_fields__:
        value = getattr(retry, field)
        if value != getattr(default, field):
            is_classes = isinstance(value, tuple)
            found[field] = [item.__name__ for item in value] if is_classes else value
    return found


PROMISES: Final = (
    "durable",
    "ordered_by_key",
    "priority",
    "max_delay",
    "replay",
    "transactional",
    "idempotent",
    "delayed_retry",
    "dead_letters",
)
"""Capabilities that a project can notice; the others are for the bus."""


def _broker(site: Site, alias: str) -> BrokerRow:
    entry = site.config.brokers[alias]
    backend = import_string(entry.backend)
    promised = site.capabilities[alias]
    return BrokerRow(
        alias=alias,
        name=backend.name,
        backend=entry.backend,
        run=entry.run,
        capacity=_capacity(backend, entry.options),
        capabilities={name: getattr(promised, name) for name in PROMISES},
    )


def _capacity(backend: type, options: Mapping[str, Any]) -> int | None:
    """Return how many messages of a type it holds; None where that has no bound."""
    known = inspect.signature(backend).parameters.get("capacity")
    default = known.default if known is not None else None
    found = options.get("capacity", default)
    return found if isinstance(found, int) else None


def _routes(routes: Mapping[str, str]) -> Iterator[RouteRow]:
    patterns = sorted(map(Pattern, routes), key=lambda pattern: pattern.specificity)
    for pattern in reversed(patterns):
        yield RouteRow(pattern=pattern.text, broker=routes[pattern.text])
    if "*" not in routes:
        yield RouteRow(pattern="*", broker=DEFAULT)
