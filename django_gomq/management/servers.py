"""The brokers that have a server, as commands choose and ask them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from django.core.management.base import CommandError

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.site import brokers

T = TypeVar("T")


def durable_brokers(aliases: list[str] | None) -> list[Broker]:
    """Return these brokers, or all that have a server; raises CommandError."""
    unknown = [alias for alias in aliases or () if alias not in set(brokers)]
    if unknown:
        raise CommandError(
            f"There is no broker {unknown[0]!r} in GOMQ['BROKERS']; there are "
            f"{', '.join(map(repr, brokers))}.",
            returncode=2,
        )
    chosen = [brokers[alias] for alias in aliases or brokers]
    durable = [broker for broker in chosen if broker.capabilities.durable]
    if not durable:
        names = ", ".join(repr(broker.alias) for broker in chosen)
        raise CommandError(
            f"{names} {'has' if len(chosen) == 1 else 'have'} no server: the memory "
            "backend keeps no events, and its consumers run where they are emitted, "
            "without setup or worker. To keep events in your database, give a broker "
            "'django_gomq.backends.database.DatabaseBackend' as its BACKEND in "
            "GOMQ['BROKERS'].",
            returncode=2,
        )
    return durable


def ask(broker: Broker, question: Callable[[], T]) -> T:
    """Return what the server of a broker answers; blocks, raises CommandError."""
    try:
        return question()
    except ConfigurationError as error:
        raise CommandError(str(error), returncode=2) from error
    except Exception as error:
        raise CommandError(
            f"The server of broker {broker.alias!r} cannot be asked: "
            f"{describe_error(error)}.",
            returncode=1,
        ) from error


def owners_of(name: str, chosen: Sequence[Broker]) -> list[Broker]:
    """Return those of these brokers where a consumer is recorded, one or more.

    Blocks for their servers. Raises CommandError where it is recorded at none.
    """
    recorded = {
        broker: ask(broker, broker.backend.stats).consumers for broker in chosen
    }
    owners = [broker for broker, names in recorded.items() if name in names]
    if not owners:
        known = sorted({known for names in recorded.values() for known in names})
        raise CommandError(
            f"No consumer {name!r} is recorded; there are "
            f"{', '.join(known) or 'none'}. Is manage.py gomq setup still to run?",
            returncode=2,
        )
    return owners


def refuse_problems(broker: Broker) -> None:
    """Raise CommandError if the server of a broker is not fit to be used."""
    problems = problems_of(broker)
    if problems:
        raise CommandError(
            f"Broker {broker.alias!r} cannot work yet: {' '.join(problems)}",
            returncode=1,
        )


def problems_of(broker: Broker) -> list[str]:
    """Return what keeps a broker from its work; blocks for its server."""
    try:
        return broker.check_server()
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        return [f"its server cannot be asked: {describe_error(error)}."]
