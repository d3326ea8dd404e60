"""Compares the consumers of the code with those that servers have recorded.

What asks a database runs only where ``check --database`` names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from django.core.checks import (
    CheckMessage,
    Tags,
    Warning,  # noqa: A004
    register,
)
from django.db import connections

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import describe_error
from django_gomq.bus.stats import ServerSample
from django_gomq.capturing import is_test_environment
from django_gomq.models import RecordedConsumer
from django_gomq.site import Site, brokers


class Leftover(msgspec.Struct, frozen=True):
    """A consumer that is recorded at a broker, and that no code has there."""

    broker: str
    name: str
    waiting: int
    """How many messages wait for it."""

    def __str__(self) -> str:
        many = "message waits" if self.waiting == 1 else "messages wait"
        return (
            f"Consumer {self.name!r} is recorded at broker {self.broker!r} and not in "
            f"the code: {self.waiting} {many} for it, and more will. Give it back, "
            "name it in the aliases of the one that takes its place, or run "
            f"manage.py gomq setup --remove {self.name}"
        )


def find_leftovers(site: Site, broker: Broker) -> Iterator[Leftover]:
    """Yield those of a broker, by name.

    Blocks for its server, and raises what its client raises.
    """
    if broker.capabilities.durable:
        yield from leftovers_in(broker.backend.stats(), site, broker)


def leftovers_in(
    sample: ServerSample, site: Site, broker: Broker
) -> Iterator[Leftover]:
    """Yield those that a server was found to know, by name. Does not block."""
    known = {consumer.name for consumer in site.consumers_of(broker.alias)}
    known.update(consumer.name for consumer in broker.consumers)
    for name in sorted(sample.consumers.keys() - known):
        numbers = sample.consumers[name]
        yield Leftover(
            broker.alias, name, (numbers.ready or 0) + (numbers.scheduled or 0)
        )


@register(Tags.database)
def check_recorded_consumers(
    databases: Sequence[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Warn of consumers that are in the code alone, or at the server alone.

    ``migrate`` runs this, too: it says nothing where there are no tables yet, and no
    error keeps that from its work.
    """
    site = brokers.site
    if site is None or is_test_environment():  # whose databases record nothing
        return []
    return [
        found
        for database, alias in site.databases.items()
        if database in (databases or ()) and _has_tables(database)
        for found in _check_broker(site, brokers[alias])
    ]


def _has_tables(database: str) -> bool:
    tables = connections[database].introspection.table_names()
    return RecordedConsumer._meta.db_table in tables


def _check_broker(site: Site, broker: Broker) -> Iterator[CheckMessage]:
    try:
        problems = broker.check_server()
        leftovers = list(find_leftovers(site, broker))
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        problems, leftovers = [f"It cannot be asked: {describe_error(error)}."], []
    for problem in problems:
        yield Warning(
            f"Broker {broker.alias!r}: {problem}",
            hint="Until then no event is dispatched to these consumers; manage.py gomq "
            "doctor says more.",
            id="gomq.W010",
        )
    for left in leftovers:
        yield Warning(
            str(left),
            hint="What waits is kept until somebody replays or discards it.",
            id="gomq.W011",
            obj=left.name,
        )
