"""An overview as tables for people; it gathers nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django_gomq.management.tables import Cell, make_table

from .overview import BrokerRow, ConsumerRow, EventRow, Overview


def as_table(overview: Overview) -> str:
    """Return the tables and the warnings as text."""
    parts = [
        make_table(
            "Events",
            ("event", "version", "broker", "emitted at", "consumers"),
            [_event(one) for one in overview.events],
            right=["version"],
        ),
        make_table(
            "Consumers",
            ("consumer", "listens to", "broker", "options"),
            [_consumer(one) for one in overview.consumers],
        ),
        make_table(
            "Brokers",
            ("broker", "backend", "run", "capacity", "capabilities"),
            [_broker(one) for one in overview.brokers],
            right=["capacity"],
        ),
        make_table(
            "Routes",
            ("events", "broker"),
            [(one.pattern, one.broker) for one in overview.routes],
        ),
        make_table(
            "Emits of which only a run tells the event",
            ("at", "call", "event"),
            [(one.where, one.call, one.text) for one in overview.dynamic],
        ),
    ]
    warnings = "\n".join(f"warning: {one.text}" for one in overview.warnings)
    return "\n\n".join(filter(None, [*parts, warnings]))


def _event(event: EventRow) -> Sequence[Cell]:
    places = list(dict.fromkeys(one.where for one in event.emitters))
    version = "-" if event.version is None else str(event.version)
    return event.type, version, event.broker, places or "-", event.consumers or "-"


def _consumer(consumer: ConsumerRow) -> Sequence[Cell]:
    options = [f"{name}={_written(one)}" for name, one in consumer.options.items()]
    return consumer.name, consumer.types, consumer.brokers, options or "-"


def _written(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return f"Retry({' '.join(f'{name}={_bare(one)}' for name, one in value.items())})"


def _bare(value: Any) -> str:
    return "|".join(value) if isinstance(value, list) else f"{value}"


def _broker(broker: BrokerRow) -> Sequence[Cell]:
    capacity = "-" if broker.capacity is None else str(broker.capacity)
    promised = [
        name if value is True else f"{name}={value:g}"
        for name, value in broker.capabilities.items()
        if value is not False and value is not None
    ]
    return broker.alias, broker.name, broker.run, capacity, promised or "-"
