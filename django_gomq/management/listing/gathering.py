"""Makes the overview of a site and of its source; it formats nothing."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.utils.module_loading import import_string

from django_gomq.bus.consumer import Consumer, ConsumerOptions
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import event_classes
from django_gomq.bus.message import validate_type
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.retry import Retry
from django_gomq.routing import DEFAULT, Routes
from django_gomq.wiring import Site

from .emitters import (
    Emitter,
    EventClass,
    by_event,
    find_emitters,
    find_event_classes,
)
from .modules import Modules
from .omissions import find_warnings
from .overview import (
    BrokerRow,
    ConsumerRow,
    Declared,
    EventRow,
    Overview,
    RouteRow,
)

_DEFAULTS: Final = {one.name: one.default for one in msgspec.structs.fields(Consumer)}


def gather(site: Site, modules: Modules) -> Overview:
    """Return who emits and who listens. Reads source files; starts nothing."""
    emitters = find_emitters(modules)
    classes = _classes(modules)
    emitted = by_event(filter(_is_type, emitters))
    events = list(_events(site, classes, emitted))
    known = [event.type for event in events]
    overview = Overview(
        events=events,
        consumers=[_consumer(site, one, known) for one in _by_name(site)],
        brokers=[_broker(site, alias) for alias in sorted(site.brokers)],
        routes=list(_routes(site.config.routes)),
        dynamic=[one for one in emitters if one.event is None],
    )
    wrong = [one for one in emitters if one.event is not None and not _is_type(one)]
    found = find_warnings(overview, wrong, modules.unreadable)
    return msgspec.structs.replace(overview, warnings=list(found))


def _by_name(site: Site) -> Sequence[Consumer]:
    return sorted(site.consumers, key=lambda one: one.name)


def _classes(modules: Modules) -> Mapping[str, Sequence[EventClass]]:
    """Return the Event classes by type: those loaded, and the others of the source."""
    found: dict[str, dict[str, EventClass]] = defaultdict(dict)
    loaded = [
        EventClass(
            f"{cls.__module__}.{cls.__qualname__}",
            cls.__event_type__,
            cls.__event_version__,
            cls.__no_consumer__,
        )
        for cls in event_classes()
    ]
    for one in (*loaded, *find_event_classes(modules)):
        found[one.type].setdefault(one.name, one)
    return {event: list(named.values()) for event, named in found.items()}


def _events(
    site: Site,
    classes: Mapping[str, Sequence[EventClass]],
    emitted: Mapping[str, Sequence[Emitter]],
) -> Iterator[EventRow]:
    consumed = {text for one in site.consumers if one.enabled for text in _exact(one)}
    listed = set(site.config.events)
    for event in sorted({*classes, *listed, *consumed, *emitted}):
        versions = [one.version for one in classes.get(event, ())]
        kinds: Mapping[Declared, bool] = {
            "class": event in classes,
            "settings": event in listed,
            "consumer": event in consumed,
        }
        yield EventRow(
            type=event,
            version=max(versions, default=None),
            classes=sorted(one.name for one in classes.get(event, ())),
            declared=[kind for kind, holds in kinds.items() if holds] or ["emit"],
            may_be_unheard=any(
                one.no_consumer == "ignore" for one in classes.get(event, ())
            ),
            broker=site.route(event),
            consumers=[one.name for one in _by_name(site) if _hears(one, event)],
            emitters=emitted.get(event, ()),
        )


def _exact(consumer: Consumer) -> Iterator[str]:
    return (text for text in consumer.types if Pattern(text).is_exact)


def _hears(consumer: Consumer, event: str) -> bool:
    return consumer.enabled and consumer.subscribes_to(event)


def _is_type(emitter: Emitter) -> bool:
    try:
        validate_type(emitter.event or "")
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
    for field in retry.__struct_fields__:
        value = getattr(retry, field)
        if value != getattr(default, field):
            is_classes = isinstance(value, tuple)
            found[field] = [one.__name__ for one in value] if is_classes else value
    return found


def _broker(site: Site, alias: str) -> BrokerRow:
    entry = site.config.brokers[alias]
    backend = import_string(entry.backend)
    return BrokerRow(
        alias=alias,
        name=backend.name,
        backend=entry.backend,
        run=entry.run,
        capacity=_capacity(backend, entry.options),
        capabilities=msgspec.structs.asdict(backend.capabilities),
    )


def _capacity(backend: type, options: Mapping[str, Any]) -> int | None:
    """Return how many messages of a type it holds; None where that has no bound."""
    known = inspect.signature(backend).parameters.get("capacity")
    default = known.default if known is not None else None
    found = options.get("capacity", default)
    return found if isinstance(found, int) else None


def _routes(routes: Mapping[str, str]) -> Iterator[RouteRow]:
    patterns = sorted(map(Pattern, routes), key=lambda one: one.specificity)
    for pattern in reversed(patterns):
        yield RouteRow(pattern=pattern.text, broker=routes[pattern.text])
    if "*" not in routes:
        yield RouteRow(pattern="*", broker=DEFAULT)
