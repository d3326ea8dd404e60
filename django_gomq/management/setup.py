"""``manage.py gomq setup``: declare consumers at the servers of the brokers."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from django.core.management.base import CommandError

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import describe_error
from django_gomq.checks.spilled import Unclaimed, find_unclaimed
from django_gomq.site import brokers

from .removing import leftovers_of, remove
from .servers import durable_brokers, problems_of
from .subcommand import Write

HELP: Final = "Declare the consumers at their servers, at each deploy."


def add_arguments(parser: ArgumentParser) -> None:
    """Add the brokers to set up."""
    parser.add_argument(
        "--broker",
        action="append",
        metavar="ALIAS",
        help="only this broker; may be given several times",
    )
    parser.add_argument(
        "--remove",
        metavar="NAME",
        help="forget a consumer that is not in the code any more; what waits for it "
        "becomes dead letters",
    )
    parser.add_argument(
        "--discard",
        action="store_true",
        help="with --remove: forget what waits for it, too",
    )
    parser.add_argument(
        "--to",
        metavar="NAME",
        help="with --remove: what it has spilled goes to this consumer",
    )


def run(options: Mapping[str, Any], write: Write) -> int:
    """Set every broker up that has a server, and tell what was done and what is left.

    Or remove one consumer, and set nothing up.
    """
    if options["remove"] is not None:
        return remove(options, write)
    if options["discard"] or options["to"] is not None:
        option = "--discard" if options["discard"] else "--to"
        raise CommandError(f"{option} is for --remove NAME.", returncode=2)
    chosen = durable_brokers(options["broker"])
    for broker in chosen:
        lines = _set_up(broker)
        write(f"Broker {broker.alias!r} ({broker.backend_name}):")
        for line in lines or ["no consumers"]:
            write(f"  {line}")
        for left in leftovers_of(broker):
            write(f"  {left}")
    for unclaimed in unclaimed_of_site():
        write(f"{unclaimed}.")
    return 0


def unclaimed_of_site() -> list[Unclaimed]:
    """Return what is spilled and no code takes back; nothing where that is unknown.

    What keeps the table from being read keeps no setup, and no worker, from its work.
    """
    with suppress(Exception):
        return list(find_unclaimed(brokers.site)) if brokers.site else []
    return []


def _set_up(broker: Broker) -> list[str]:
    try:
        return broker.setup()
    except Exception as error:
        raise CommandError(
            f"Broker {broker.alias!r} could not be set up: "
            f"{' '.join(problems_of(broker)) or describe_error(error)}",
            returncode=1,
        ) from error
