"""``manage.py gomq replay`` and ``prune``: what is done with kept events."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.core.management.base import CommandError

from django_gomq.bus.backend import HistoryFilter
from django_gomq.bus.broker import Broker

from .arguments import moment, pattern, span
from .servers import ask, durable_brokers, owners_of
from .subcommand import Subcommand, Write


class _Replay:
    HELP = "Hand kept events to a consumer again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the consumer, and which events."""
        _add_broker(parser)
        parser.add_argument(
            "--consumer", metavar="NAME", required=True, help="who gets them"
        )
        parser.add_argument(
            "--event",
            action="append",
            type=pattern,
            default=[],
            metavar="PATTERN",
            help="only this event type, or pattern such as 'health.*'; may be repeated",
        )
        for option, which in (("--since", "from then on"), ("--until", "before then")):
            parser.add_argument(
                option,
                type=moment,
                metavar="TIME",
                help=f"only those made {which}: 30m, 2h, 7d, or 2026-01-31T12:00",
            )
        parser.add_argument(
            "--dry-run", action="store_true", help="count them, and do no more"
        )

    def run(self, options: Mapping[str, Any], write: Write) -> int:
        """Replay from each broker that has the consumer; say how many."""
        name, dry_run = options["consumer"], options["dry_run"]
        kept = HistoryFilter(
            patterns=tuple(options["event"]),
            since=options["since"],
            until=options["until"],
        )
        chosen = _keeping(options["broker"])
        owners = owners_of(name, chosen)
        for broker in owners:
            replay = partial(broker.backend.replay_history, name, kept)
            count = ask(broker, partial(replay, dry_run=dry_run))
            done = "would be replayed" if dry_run else "replayed"
            write(f"Broker {broker.alias!r}: {_events(count)} {done} for {name}.")
        return 0


class _Prune:
    HELP = "Delete kept events that nobody waits for."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add their age."""
        _add_broker(parser)
        parser.add_argument(
            "--older-than",
            type=span,
            metavar="SPAN",
            help="such as 12h or 30d (default: OPTIONS['history'] of the broker)",
        )

    def run(self, options: Mapping[str, Any], write: Write) -> int:
        """Prune at each broker; say how many."""
        for broker in _keeping(options["broker"]):
            prune = partial(broker.backend.prune, options["older_than"])
            count = ask(broker, prune)
            write(f"Broker {broker.alias!r}: {_events(count)} deleted.")
        return 0


REPLAY: Final[Subcommand] = _Replay()
PRUNE: Final[Subcommand] = _Prune()


def _add_broker(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--broker", action="append", metavar="ALIAS", help="only at this broker"
    )


def _keeping(aliases: list[str] | None) -> Sequence[Broker]:
    """Return these brokers, or all that keep history; raises CommandError."""
    durable = durable_brokers(aliases)
    keeping = [broker for broker in durable if broker.capabilities.replay]
    if not keeping:
        names = ", ".join(repr(broker.alias) for broker in durable)
        raise CommandError(f"Broker {names} keeps no history.", returncode=2)
    return keeping


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"
