"""``manage.py gomq doctor``: says what is wrong with a site as it stands."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec
from django.core.checks import ERROR, run_checks
from django.db import connections
from django.db.migrations.loader import MigrationLoader

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import describe_error
from django_gomq.bus.stats import ServerSample
from django_gomq.checks.recorded import leftovers_in
from django_gomq.checks.spilled import find_unclaimed
from django_gomq.site import Site, brokers

from .subcommand import Write

HELP: Final = "Say what is wrong with the site as it stands, and what to do."

State = Literal["ok", "warning", "broken"]
OLD_SECONDS: Final = 60.0
"""For so long an event may stand in an outbox."""
_ROLES: Final[Mapping[State, str]] = {
    "ok": "SUCCESS",
    "warning": "WARNING",
    "broken": "ERROR",
}


class Finding(msgspec.Struct, frozen=True):
    """What was looked at, and what to do where it is not well."""

    state: State
    text: str

    def __str__(self) -> str:
        return f"{self.state + ':':8} {self.text}"


def add_arguments(parser: ArgumentParser) -> None:
    """There is nothing to choose."""


def run(options: Mapping[str, Any], write: Write) -> int:
    """Write a line for each finding; return 1 if something is broken, else 0.

    Blocks for the servers; changes nothing.
    """
    findings = list(_examine())
    screen = options["screen"]
    for found in findings:
        write(screen.sentence(_ROLES[found.state], str(found)))
    return int(any(found.state == "broken" for found in findings))


def _examine() -> Iterator[Finding]:
    yield from _settings()
    site = brokers.site
    if site is None:
        return  # what keeps it from being made was told
    durable = [  # the broker's own capabilities would have it made
        broker for alias, broker in brokers.items() if site.capabilities[alias].durable
    ]
    if not durable:
        yield Finding(
            "ok",
            "No broker has a server: consumers run where events are emitted, and no "
            "worker is needed.",
        )
    for broker in durable:
        yield from _server(site, broker)
    yield from _spilled(site)


def _spilled(site: Site) -> Iterator[Finding]:
    try:
        for left in find_unclaimed(site):
            yield Finding("warning", f"{left}.")
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        yield Finding(
            "warning",
            f"The table of spilled messages cannot be read: {describe_error(error)}.",
        )


def _settings() -> Iterator[Finding]:
    found = run_checks(tags=["gomq"])
    for message in found:
        state: State = "broken" if message.level >= ERROR else "warning"
        hint = f" {message.hint}" if message.hint else ""
        yield Finding(state, f"{message.msg}{hint} ({message.id})")
    if not found:
        yield Finding("ok", "Settings and registrations have no known mistake.")


def _server(site: Site, broker: Broker) -> Iterator[Finding]:
    """Look at the server of a broker: at less of it, the less it answers."""
    try:
        pending = _unapplied(broker.backend.database)
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        yield _of(broker, "broken", f"its server is away: {describe_error(error)}.")
        return
    if pending:
        yield _of(
            broker,
            "broken",
            f"migrations are not applied ({', '.join(pending)}): run manage.py migrate "
            f"gomq --database {broker.backend.database}.",
        )
        return
    answers = True
    try:
        problems = broker.check_server()
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        problems = [f"its server cannot be asked: {describe_error(error)}."]
        answers = False  # but the database of an outbox may
    for problem in problems:
        yield _of(broker, "broken", problem)
    try:
        sample = broker.backend.stats()
    except Exception as error:  # noqa: BLE001 - whatever a client raises
        yield _of(broker, "broken", f"its server fails: {describe_error(error)}.")
        return
    if answers:
        yield _of(broker, "ok", _told(sample))
    yield from _outbox(broker, sample)
    leftovers = list(leftovers_in(sample, site, broker))
    yield from _work(broker, sample, {left.name for left in leftovers})
    for left in leftovers:
        yield Finding("warning", f"{left}.")


def _of(broker: Broker, state: State, text: str) -> Finding:
    return Finding(state, f"Broker {broker.alias!r}: {text}")


def _unapplied(database: str | None) -> list[str]:
    """Return which of our migrations a database has not seen."""
    if database is None:
        return []
    loader = MigrationLoader(connections[database])
    ours = {key for key in loader.disk_migrations or () if key[0] == "gomq"}
    return sorted(name for _, name in ours - loader.applied_migrations.keys())


def _told(sample: ServerSample) -> str:
    waiting = sum(
        (numbers.ready or 0) + (numbers.scheduled or 0)
        for numbers in sample.consumers.values()
    )
    dead = sum(numbers.dead or 0 for numbers in sample.consumers.values())
    alive = [process for process in sample.processes or () if not process.is_late]
    return (
        f"its server answers; recorded consumers: {len(sample.consumers)}, living "
        f"processes: {len(alive)}, waiting: {waiting}, dead letters: {dead}."
    )


def _work(
    broker: Broker, sample: ServerSample, leftovers: Collection[str]
) -> Iterator[Finding]:
    """Look at who works on what waits; leftovers are told of by themselves."""
    for process in sample.processes or ():
        if process.is_late:
            yield _of(
                broker,
                "warning",
                f"process {process.pid} of host {process.host} has not said for "
                f"{process.beat_age:.0f} s that it lives: it ended without a word, or "
                "stands still. A worker that runs frees what it held.",
            )
    for name, numbers in sample.consumers.items():
        if numbers.workers != 0 or name in leftovers:
            continue
        waiting = (numbers.ready or 0) + (numbers.scheduled or 0)
        yield _of(
            broker,
            "broken" if waiting else "warning",
            f"no process runs {name!r}, and {waiting} messages wait for it: start "
            "manage.py gomq worker.",
        )


def _outbox(broker: Broker, sample: ServerSample) -> Iterator[Finding]:
    """Look at what stands in an outbox, and at who takes it from there."""
    depth, age = sample.outbox_depth or 0, sample.outbox_oldest_age or 0.0
    if sample.is_relayed is False:
        yield _of(
            broker,
            "broken" if depth else "warning",
            f"no process forwards what stands in its outbox, {depth} events: start "
            "manage.py gomq worker.",
        )
    elif age > OLD_SECONDS:
        way = "takes" if sample.is_relayed is None else "gets through with"
        yield _of(
            broker,
            "warning",
            f"the oldest event in the outbox is {age:.0f} s old: no worker {way} it. "
            "See the log of the workers.",
        )
    if sample.outbox_refused:
        yield _of(
            broker,
            "warning",
            f"its server will never take {sample.outbox_refused} events that were "
            "emitted: see manage.py gomq dead-letters list --consumer gomq.relay.",
        )
