"""Checks of consumers that spill, and of spilled messages that no code takes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from django.core.checks import (
    CheckMessage,
    Error,
    Tags,
    Warning,  # noqa: A004
    register,
)
from django.utils.module_loading import import_string

from django_gomq.bus.errors import describe_error
from django_gomq.capturing import is_test_environment
from django_gomq.database import spill_database
from django_gomq.site import Site, brokers


class Unclaimed(msgspec.Struct, frozen=True):
    """What a consumer has spilled that the code does not have, or not as it was."""

    using: str
    """The alias of the database."""
    broker: str
    name: str
    waiting: int
    """How many messages."""

    def __str__(self) -> str:
        waits = "message that" if self.waiting == 1 else "messages that"
        verb = "waits" if self.waiting == 1 else "wait"
        return (
            f"{self.waiting} {waits} {self.name!r} of broker {self.broker!r} has "
            f"spilled {verb} in database {self.using!r}, and no consumer of that name "
            "has overflow='spill' there now, to take back what was spilled. Give it "
            f"back, or run manage.py gomq setup --remove {self.name}"
        )


def find_unclaimed(site: Site) -> Iterator[Unclaimed]:
    """Yield what no consumer of the code takes back, one that is disabled included.

    Blocks for the database, and raises what it raises.
    """
    using = spill_database()
    if using is None:
        return
    find = import_string("django_gomq.backends.database.unclaimed.find")
    for rows in find(using):
        if rows.consumer not in spilling_consumers(site, rows.broker):
            yield Unclaimed(using, rows.broker, rows.consumer, rows.count)


def spilling_consumers(site: Site, alias: str) -> set[str]:
    """Return the names of those that take back what a broker has spilled."""
    if alias not in site.brokers:
        return set()
    consumers = [*site.consumers_of(alias), *site.brokers[alias].consumers]
    spills = site.capabilities[alias].spills
    return {consumer.name for consumer in consumers if spills(consumer)}


@register("gomq")
def check_spilling(**options: Any) -> list[CheckMessage]:
    """Report consumers that spill where there is no database for it."""
    names = _spilling_names()
    if not names or spill_database() is not None:
        return []
    return [
        Error(
            f"Consumer {names[0]!r} has overflow='spill', and there is no database "
            "for what it spills.",
            hint="Have a PostgreSQL, MySQL, MariaDB or SQLite in DATABASES, or give it "
            "another overflow.",
            obj=names[0],
            id="gomq.E010",
        )
    ]


@register(Tags.database)
def check_spill_tables(
    databases: Sequence[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Warn where consumers spill into tables that are still to be made.

    No error: ``migrate``, which makes them, asks this too.
    """
    names = _spilling_names()
    using = spill_database() if names else None
    if using is None or using not in (databases or ()):
        return []
    find_missing = import_string("django_gomq.backends.database.spill.missing_tables")
    missing: list[str] = find_missing(using)
    if not missing:
        return []
    return [
        Warning(
            f"Consumer {names[0]!r} has overflow='spill', and database {using!r} has "
            f"no table {missing[0]}: its broker does not start.",
            hint=f"Run manage.py migrate --database {using}.",
            obj=names[0],
            id="gomq.W012",
        )
    ]


def _spilling_names() -> list[str]:
    """Return the enabled consumers that a broker here spills for."""
    site = brokers.site
    if site is None:
        return []
    return [
        consumer.name
        for alias in site.brokers
        for consumer in site.consumers_of(alias)
        if consumer.enabled and site.capabilities[alias].spills(consumer)
    ]


@register(Tags.database)
def check_spilled(
    databases: Sequence[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Warn of what no code takes back; no error keeps ``migrate`` from its work."""
    site = brokers.site
    if site is None or is_test_environment():
        return []
    if spill_database() not in (databases or ()):
        return []
    try:
        found = list(find_unclaimed(site))
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        return [
            Warning(
                "The table of spilled messages cannot be read: "
                f"{describe_error(error)}.",
                id="gomq.W014",
            )
        ]
    return [
        Warning(
            str(each),
            hint="They are kept until somebody takes them.",
            id="gomq.W014",
            obj=each.name,
        )
        for each in found
    ]
