"""``gomq setup --remove``: end what waits for a consumer that the code has lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.core.management.base import CommandError

from django_gomq.backends.database import unclaimed
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import describe_error
from django_gomq.checks.recorded import Leftover, find_leftovers
from django_gomq.checks.spilled import Unclaimed, find_unclaimed, spilling_consumers
from django_gomq.dead_letters.rows import database_of_processes
from django_gomq.dead_letters.store import KEPT_STORED
from django_gomq.site import Site, brokers

from .servers import ask, durable_brokers, owners_of
from .subcommand import Write

WRONG: Final = 2


def remove(options: Mapping[str, Any], write: Write) -> int:
    """Remove a consumer from the servers, and end what it has spilled. Blocks.

    Raises CommandError where it is nowhere, or in the code, and then changes nothing.
    """
    name, discard, to = options["remove"], options["discard"], options["to"]
    if discard and to is not None:
        raise CommandError("Give --discard or --to, not both.", returncode=WRONG)
    spilled = _spilled_of(name, options["broker"])
    if to is not None and not spilled:
        raise CommandError(
            f"Nothing is spilled of a consumer {name!r} that the code has lost, and "
            "--to is for that. At a broker with a server name it in the aliases of the "
            "one that takes its place.",
            returncode=WRONG,
        )
    recorded = (
        _recorded_of(name, options["broker"], is_spilled=bool(spilled))
        if to is None
        else ()
    )
    steps = [_step(each, to, discard=discard) for each in spilled]
    for step in steps:
        write(step())
    for broker in recorded:
        count = ask(broker, partial(broker.backend.remove, name, discard=discard))
        fate = "discarded" if discard else "now dead letters"
        write(f"Broker {broker.alias!r}: removed {name}; {count} messages {fate}.")
    return 0


def _spilled_of(name: str, aliases: Sequence[str] | None) -> list[Unclaimed]:
    site = brokers.site
    if site is None:
        return []
    try:
        found = list(find_unclaimed(site))
    except Exception as error:
        raise CommandError(
            f"The table of spilled messages cannot be read: {describe_error(error)}.",
            returncode=1,
        ) from error
    return [
        each
        for each in found
        if each.name == name and (not aliases or each.broker in aliases)
    ]


def _recorded_of(
    name: str, aliases: list[str] | None, *, is_spilled: bool
) -> list[Broker]:
    """Return the brokers with a server to remove it from; where it has spilled, if any.

    One that kept its events in memory before has what was spilled, and its consumers.
    """
    if is_spilled:
        asked = [brokers[alias] for alias in brokers if alias in (aliases or brokers)]
        durable = [broker for broker in asked if broker.capabilities.durable]
        return [broker for broker in durable if _is_left(name, broker)]
    owners = owners_of(name, durable_brokers(aliases))
    for broker in owners:
        if not _is_left(name, broker):
            raise CommandError(
                f"Consumer {name!r} of broker {broker.alias!r} is in the code, and the "
                "next setup would record it again: take it out first.",
                returncode=WRONG,
            )
    return owners


def leftovers_of(broker: Broker) -> list[Leftover]:
    """Return the consumers of a broker that the code does not have. Blocks."""
    return list(find_leftovers(brokers.site, broker)) if brokers.site else []


def _is_left(name: str, broker: Broker) -> bool:
    left = ask(broker, lambda: leftovers_of(broker))
    return any(each.name == name for each in left)


def _step(found: Unclaimed, to: str | None, *, discard: bool) -> Callable[[], str]:
    """Return what ends this, and tells of it; nothing is changed before."""
    whose = found.using, found.broker, found.name
    if to is not None:
        _refuse_stranger(found, to)
        return partial(
            _told, found, partial(unclaimed.hand_on, *whose, to), f"go to {to}"
        )
    if discard:
        return partial(_told, found, partial(unclaimed.discard, *whose), "discarded")
    _refuse_unkept(found)
    return partial(_told, found, partial(unclaimed.bury, *whose), "now dead letters")


def _refuse_stranger(found: Unclaimed, to: str) -> None:
    site = brokers.site
    known = spilling_consumers(site, found.broker) if site else set[str]()
    if to not in known:
        raise CommandError(
            f"Broker {found.broker!r} has no consumer {to!r} with overflow='spill'; "
            f"there are {', '.join(sorted(known)) or 'none'}.",
            returncode=WRONG,
        )


def _refuse_unkept(found: Unclaimed) -> None:
    """Make no dead letters that nobody would keep."""
    site: Site | None = brokers.site
    most = KEPT_STORED
    if site is not None:
        most = site.config.dead_letters.get("KEEP_STORED", KEPT_STORED)
    if database_of_processes() != found.using:
        why = f"the dead letters of its broker are not kept in database {found.using!r}"
    elif found.waiting > most:
        why = f"of {found.waiting} messages {most} would be kept (KEEP_STORED)"
    else:
        return
    raise CommandError(
        f"What {found.name!r} of broker {found.broker!r} has spilled cannot become "
        f"dead letters: {why}. Say --to NAME, for another consumer, or --discard.",
        returncode=WRONG,
    )


def _told(found: Unclaimed, act: Callable[[], int], fate: str) -> str:
    try:
        count = act()
    except Exception as error:
        raise CommandError(
            f"Database {found.using!r} failed in the midst of it: "
            f"{describe_error(error)}. Run this again: it goes on.",
            returncode=1,
        ) from error
    held = found.waiting - count
    left = f"; {held} are with a process that runs: end it, and run this again"
    return (
        f"Broker {found.broker!r}: {count} messages that {found.name} has spilled "
        f"{fate}{left if held > 0 else ''}."
    )
